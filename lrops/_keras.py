"""Keras 3 and tf_keras, either or both: the classes of each that is imported.

Called by schedules.py, callbacks.py and steps.py. It must not import a Keras: which one runs is the user's choice.
"""

import operator
import sys


def classes(path):
    """The class at `path`, as "callbacks.Callback", of each Keras that is imported, after the name of that Keras."""
    for name in ("keras", "tf_keras"):
        if sys.modules.get(name):
            yield name, operator.attrgetter(path)(sys.modules[name])


def adopt(cls, path):
    """Makes `cls` a subclass of the class at `path` of each Keras that is imported.

    Keras 3 and tf_keras each want a class of their own, and a user may have either or both. A class of lrops takes the
    base of each Keras that is imported when lrops is, or when an object is made. `import tensorflow` imports the one
    that `tf.keras` stands for, so only a second one can come too late.

    Args:
        cls: A class with a base other than `object`: Python cannot add bases to a class that has none.
        path: Where the base stands in Keras, as "callbacks.Callback".

    Returns:
        The Keras modules that `cls` had no base of before.
    """
    adopted = []
    for name, base in classes(path):
        if not issubclass(cls, base):
            cls.__bases__ += (base,)
            adopted.append(sys.modules[name])
    return adopted
