"""Keras 3 and tf_keras, either or both: the classes of each that is imported. It imports neither: the user chooses."""

import contextlib
import operator
import sys
import threading

_NAMES = ("keras", "tf_keras")
_ADAPTED: dict[type, tuple[str, tuple[type, ...]]] = {}  # what `add_keras_bases` was told of each class
_LOCK = threading.Lock()


def in_each_keras(*paths):
    """The classes at `paths`, such as "callbacks.Callback", of each Keras that is imported, after that Keras' name."""
    for name in _NAMES:
        module = sys.modules.get(name)
        if not module:
            continue
        try:
            found = [operator.attrgetter(path)(module) for path in paths]
        except AttributeError:
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                continue  # another thread is importing it: `_Finder` adapts to it afterwards
            raise
        yield name, *found


def add_keras_bases(cls, path, saved=()):
    """Makes `cls` a subclass of the class at `path` of each Keras that is imported, and of each that will be.

    Keras 3 and tf_keras each want a subclass of their own class, and a user may have either or both, imported before
    lrops or after it. Call this again when an object is made or restored: it costs little, and adapts to a Keras that
    was imported in a way that `_Finder` does not notice.

    Args:
        cls: A class with a base other than `object`: Python cannot add bases to a class that has none.
        path: The base in Keras, such as "callbacks.Callback".
        saved: Classes that each Keras shall find by name when it loads a model.
    """
    _ADAPTED[cls] = (path, saved)
    needed = (path, "saving.register_keras_serializable", "utils.get_custom_objects")
    for name, base, register, custom_objects in in_each_keras(*needed):
        with _LOCK:  # two threads may each have imported a Keras
            if issubclass(cls, base):
                continue
            for named in saved:
                register("lrops")(named)
                if name == "tf_keras":  # whose .h5 files have the bare name; a class of the user's keeps it
                    custom_objects().setdefault(named.__name__, named)
            cls.__bases__ += (base,)


SCHEDULE = "optimizers.schedules.LearningRateSchedule"


def serialized(schedule, own_class):
    """A schedule as its Keras saves it, after the name of that Keras, or None if it is of more than one.

    Args:
        schedule: An instance of the class at `SCHEDULE` of some Keras.
        own_class: A function that gives the class of lrops of a name, or None.
    """
    cls = type(schedule)
    if own_class(cls.__name__) is cls:  # without any Keras, which need not be imported
        saved = {"module": cls.__module__, "class_name": cls.__name__, "config": schedule.get_config()}
        return None, saved | {"registered_name": f"lrops>{cls.__name__}"}
    names = [name for name, base in in_each_keras(SCHEDULE) if isinstance(schedule, base)]
    name = names[0] if len(names) == 1 else None
    return name, _imported(name, cls.__name__).optimizers.schedules.serialize(schedule)


def deserialized(saved, name, own_class):
    """The schedule of which `serialized` gave this; `name` is that of its Keras, or None."""
    own = own_class(saved["class_name"])
    if own and saved.get("registered_name") == f"lrops>{own.__name__}":
        return own.from_config(saved["config"])
    return _imported(name, saved["class_name"]).optimizers.schedules.deserialize(saved)


def _imported(name, class_name):
    """The Keras of this name, or any for None."""
    for known in [name] if name else _NAMES:
        if sys.modules.get(known):
            return sys.modules[known]
    raise ValueError(
        f"a schedule is saved and loaded by its Keras, which is not imported: import {name or 'keras or tf_keras'}. "
        f"Received: a {class_name}"
    )


class _Finder:
    """Adapts the classes of lrops to a Keras as soon as that is imported. It finds no module itself."""

    def find_spec(self, name, path=None, target=None):
        """Part of `sys.meta_path`: what the finders after this one find, with a loader that adapts the classes."""
        finders = list(sys.meta_path)
        if name not in _NAMES or self not in finders:
            return None
        for finder in finders[finders.index(self) + 1 :]:
            spec = hasattr(finder, "find_spec") and finder.find_spec(name, path, target)
            if spec:
                with contextlib.suppress(AttributeError):  # of a loader without exec_module, or one that takes no other
                    _adapt_after(spec.loader, name)
                return spec
        return None


def _adapt_after(loader, name):
    exec_module = loader.exec_module

    def exec_and_adapt(module):
        exec_module(module)
        if module.__name__ == name:  # a loader may serve several modules
            loader.exec_module = exec_module
            # Of a Keras that is not one: an object of lrops says so when it is made, and others may import it.
            with contextlib.suppress(AttributeError):
                for cls, (path, saved) in list(_ADAPTED.items()):
                    add_keras_bases(cls, path, saved)

    loader.exec_module = exec_and_adapt


sys.meta_path.insert(0, _Finder())
