"""Makes the classes of lrops work with Keras 3, with tf_keras, or with both in one process.

Each Keras accepts only instances of its own base class as schedules, and lrops imports neither Keras: the user chooses.
So each class of lrops gets the bases of the imported Keras, by `__bases__`; `sys.meta_path` notices a later import. Two
designs without that were weighed:

* Explicit modules, `lrops.keras` and `lrops.tf_keras`, each with its own classes. A pickle, a saved model and an
  `isinstance` would then depend on the Keras that wrote them, and every example, error and page would exist twice.
* One flavour for the process, that of `tf.keras`. It fails for a user who imports `tf_keras` without
  TF_USE_LEGACY_KERAS, or both Keras, and `import lrops` would import a Keras, which takes seconds.

Here `lrops.WarmupCosineDecay` is one class that every optimizer takes, whatever is imported first.
"""

import contextlib
import importlib.util
import operator
import sys
import threading

import tensorflow as tf

_NAMES = ("keras", "tf_keras")
_ADAPTED: dict[type, tuple[str, tuple[type, ...]]] = {}  # the other arguments of `add_keras_bases`, by class
_LOCK = threading.Lock()


def in_each_keras(*paths):
    """Yields, for each imported Keras, its name and its classes at `paths`, such as "callbacks.Callback"."""
    for name in _NAMES:
        module = sys.modules.get(name)
        if not module:
            continue
        try:
            found = [operator.attrgetter(path)(module) for path in paths]
        except AttributeError:
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                continue  # another thread is importing it, and `_Finder` adds the bases afterwards
            raise
        yield name, *found


def add_keras_bases(cls, path, saved=()):
    """Makes `cls` a subclass of the class at `path` in each Keras, imported now or later.

    Args:
        cls: A class with a base other than `object`. Python cannot add bases to a class without one.
        path: The base class in Keras, such as "callbacks.Callback".
        saved: Classes that each Keras must find by name when it loads a model.
    """
    _ADAPTED[cls] = (path, saved)
    add_missing_bases()


def add_missing_bases():
    """Adds missing bases. It is also called for each new or restored object, in case `_Finder` missed an import."""
    for cls, (path, saved) in list(_ADAPTED.items()):
        needed = (path, "saving.register_keras_serializable", "utils.get_custom_objects")
        for name, base, register, custom_objects in in_each_keras(*needed):
            with _LOCK:  # two threads may each be importing a Keras
                if issubclass(cls, base):
                    continue
                for named in saved:
                    register("lrops")(named)
                    if name == "tf_keras":  # its .h5 files hold the bare name; a user's class of that name goes first
                        custom_objects().setdefault(named.__name__, named)
                cls.__bases__ += (base,)


SCHEDULE = "optimizers.schedules.LearningRateSchedule"


def _class_of_lrops(name):
    """The class of lrops that is saved under this name, or None."""
    return next((cls for _, saved in _ADAPTED.values() for cls in saved if cls.__name__ == name), None)


def serialized(schedule):
    """The name of a schedule's Keras, and the schedule as that Keras saves it.

    The name is None for a class of lrops, and for a schedule that belongs to more than one Keras.
    """
    cls = type(schedule)
    if _class_of_lrops(cls.__name__) is cls:  # needs no Keras
        saved = {"module": cls.__module__, "class_name": cls.__name__, "config": schedule.get_config()}
        return None, saved | {"registered_name": f"lrops>{cls.__name__}"}
    names = [name for name, base in in_each_keras(SCHEDULE) if isinstance(schedule, base)]
    name = names[0] if len(names) == 1 else None
    return name, _imported(name, cls.__name__).optimizers.schedules.serialize(schedule)


def deserialized(saved, name):
    """The schedule that `serialized` saved. `name` is the name of its Keras, or None."""
    own = _class_of_lrops(saved["class_name"])
    if own and saved.get("registered_name") == f"lrops>{own.__name__}":
        return own.from_config(saved["config"])
    return _imported(name, saved["class_name"]).optimizers.schedules.deserialize(saved)


def _imported(name, class_name):
    """The imported Keras of this name, or any imported one for None."""
    for known in [name] if name else _NAMES:
        if sys.modules.get(known):
            return sys.modules[known]
    fix = f"import {name or 'keras or tf_keras'}"
    if name == "tf_keras" and importlib.util.find_spec(name) is None:
        minor = ".".join(tf.__version__.split(".")[:2])
        fix = f"run `pip install --no-deps 'tf_keras=={minor}.*'`, then import tf_keras"
    raise ValueError(
        f"a schedule is saved and loaded by its own Keras, which is not imported: {fix}. Received: a {class_name}"
    )


class _Finder:
    """Adds the bases as soon as a Keras is imported. It is part of `sys.meta_path` and finds no module itself."""

    def find_spec(self, name, path=None, target=None):
        """What the next finders find. The loader is changed: it adds the bases after it has run the module."""
        finders = list(sys.meta_path)
        if name not in _NAMES or self not in finders:
            return None
        for finder in finders[finders.index(self) + 1 :]:
            spec = hasattr(finder, "find_spec") and finder.find_spec(name, path, target)
            if spec:
                # A loader may have no exec_module, or not allow replacing it.
                with contextlib.suppress(AttributeError):
                    _adapt_after(spec.loader, name)
                return spec
        return None


def _adapt_after(loader, name):
    exec_module = loader.exec_module

    def exec_and_adapt(module):
        exec_module(module)
        if module.__name__ == name:  # a loader may serve several modules
            loader.exec_module = exec_module
            # A module named like a Keras that is not one must not fail here: making a schedule raises then.
            with contextlib.suppress(AttributeError):
                add_missing_bases()

    loader.exec_module = exec_and_adapt


sys.meta_path.insert(0, _Finder())
