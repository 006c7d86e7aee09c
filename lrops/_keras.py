"""Keras 3 and tf_keras, either or both: the classes of each that is imported. It imports neither: the user chooses."""

import operator
import sys


def in_each_keras(path):
    """The class at `path`, such as "callbacks.Callback", of each Keras that is imported, after that Keras' name."""
    for name in ("keras", "tf_keras"):
        if sys.modules.get(name):
            yield name, operator.attrgetter(path)(sys.modules[name])


def add_keras_bases(cls, path):
    """Makes `cls` a subclass of the class at `path` of each Keras that is imported.

    Keras 3 and tf_keras each want a subclass of their own class, and a user may have either or both. A class of lrops
    takes the base of each Keras that is imported when lrops is, or when an object is made. `import tensorflow` imports
    the one that `tf.keras` means, so only a second one can come too late.

    Args:
        cls: A class with a base other than `object`: Python cannot add bases to a class that has none.
        path: The base in Keras, such as "callbacks.Callback".

    Returns:
        The Keras modules that `cls` had no base of before.
    """
    added = []
    for name, base in in_each_keras(path):
        if not issubclass(cls, base):
            cls.__bases__ += (base,)
            added.append(sys.modules[name])
    return added
