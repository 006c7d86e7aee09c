"""Keras 3, tf_keras, and tf.keras set to either, each in its own process, as a user starts it."""

import re
import sys

import pytest
from processes import run_python, run_snippet

TRAIN = """
schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
base = keras.optimizers.schedules.LearningRateSchedule
assert isinstance(schedule, base) and issubclass(lrops.WarmupCosineRestarts, base)
model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])
model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.1), "mse")
rows = np.ones((32, 4), "float32")
model.fit(rows, rows[:, :1], batch_size=8, epochs=3, verbose=0)
assert int(model.optimizer.iterations.numpy()) == 12
# Keras 3 shows the next update's rate, tf_keras the last one's.
shown = 11 if keras.__name__.startswith("tf_keras") else 12
expected = reference.warmup_decay(shown, 0.01, 8, 40)
assert np.asarray(model.optimizer.learning_rate) == expected
model.save("model.keras")
again = keras.models.load_model("model.keras")
assert int(again.optimizer.iterations.numpy()) == 12
assert again.optimizer.get_config()["learning_rate"] == model.optimizer.get_config()["learning_rate"]
print("trained with", keras.__name__)
"""
NUMPY = "import numpy as np\n"
LROPS = "import lrops\nfrom lrops import reference\n"
STARTS = {
    "keras_first": ("import keras\n" + LROPS, {}, "keras"),
    "tf_keras_attribute": (LROPS + "import tensorflow as tf\nkeras = tf.keras\n", {}, "keras"),
    "tf_keras_first": ("import tf_keras as keras\n" + LROPS, {}, "tf_keras"),
    "legacy": (LROPS + "import tensorflow as tf\nkeras = tf.keras\n", {"TF_USE_LEGACY_KERAS": "1"}, "tf_keras"),
    "both": ("import tf_keras\nimport keras\n" + LROPS, {}, "keras"),
    # Only tf_keras: Keras 3 cannot be imported.
    "no_keras": (
        "import sys\nsys.modules['keras'] = None\nimport tf_keras as keras\n" + LROPS,
        {"TF_USE_LEGACY_KERAS": "1"},
        "tf_keras",
    ),
    "no_tf_keras": ("import sys\nsys.modules['tf_keras'] = None\nimport keras\n" + LROPS, {}, "keras"),
}


@pytest.mark.parametrize("start", STARTS)
def test_trains(start, tmp_path):
    imports, environment, keras = STARTS[start]
    run = (lambda code, **how: run_python("-c", code, **how)) if environment else run_snippet
    result = run(NUMPY + imports + TRAIN, folder=tmp_path, **environment)
    assert result.returncode == 0, result.stderr
    assert f"trained with {keras}" in result.stdout.replace("keras.api", "keras").replace("_tf_keras.", "")


SAVE = """
import numpy as np
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.AdamW(lrops.{schedule}, weight_decay=0.1), "mse")
model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
model.save("model.keras")
"""
LOAD = """
model = keras.models.load_model("model.keras")
schedule = model.optimizer._learning_rate
assert type(schedule).__module__ == "lrops.schedules", schedule
assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
assert isinstance(lrops.LearningRateLogger(), keras.callbacks.Callback)
print("loaded", repr(schedule))
"""
COSINE = "WarmupCosineDecay(0.01, 8, 40)"
RESTARTS = "WarmupCosineRestarts(0.01, 8, 40)"
DECAY = "WarmupDecay(0.01, 8, 40, decay='linear')"
INVERSE = "WarmupInverseSqrt(0.01, 8)"
WARMUP = "LinearWarmup(lrops.WarmupInverseSqrt(0.01, 8, warmup_start=1.0), 8)"
HOWS = {
    "import": "import {} as keras",
    "import_module": "import importlib; keras = importlib.import_module('{}')",
    "thread": "import threading\nthread = threading.Thread(target=lambda: __import__('{}'))\n"
    "thread.start()\nthread.join()\nimport {} as keras",
}
FIRST, AFTER = "keras first", "lrops first"


# Every pair of a schedule, a Keras, an order of the imports and a way to import occurs.
@pytest.mark.parametrize(
    ("schedule", "keras", "order", "how"),
    [
        (COSINE, "keras", AFTER, "import"),
        (COSINE, "tf_keras", FIRST, "import_module"),
        (COSINE, "tf_keras", AFTER, "thread"),
        (RESTARTS, "keras", FIRST, "thread"),
        (RESTARTS, "tf_keras", AFTER, "import_module"),
        (RESTARTS, "tf_keras", FIRST, "import"),
        (DECAY, "keras", AFTER, "import_module"),
        (DECAY, "tf_keras", FIRST, "import"),
        (DECAY, "tf_keras", AFTER, "thread"),
        (INVERSE, "keras", FIRST, "import_module"),
        (INVERSE, "tf_keras", AFTER, "import"),
        (INVERSE, "keras", AFTER, "thread"),
        (WARMUP, "keras", AFTER, "import"),
        (WARMUP, "tf_keras", FIRST, "thread"),
        (WARMUP, "tf_keras", AFTER, "import_module"),
    ],
)
def test_a_process_that_only_loads(tmp_path, schedule, keras, order, how):
    result = run_snippet(f"import {keras} as keras, lrops\n" + SAVE.format(schedule=schedule), folder=tmp_path)
    assert result.returncode == 0, result.stderr
    imports = [HOWS[how].replace("{}", keras), "import lrops"]
    code = "\n".join(imports if order == FIRST else reversed(imports)) + LOAD
    result = run_snippet(code, folder=tmp_path)
    assert f"loaded lrops.{schedule.partition('(')[0]}(" in result.stdout, result.stderr


RESTORED = f"""
import copy, pickle, sys
import lrops, tensorflow as tf
for made in (lrops.{COSINE}, lrops.{RESTARTS}, lrops.{DECAY}, lrops.{INVERSE}, lrops.{WARMUP}):
    saved = pickle.dumps(made)
    import tf_keras
    for restored in (made, pickle.loads(saved), copy.copy(made), copy.deepcopy(made)):
        assert isinstance(restored, tf_keras.optimizers.schedules.LearningRateSchedule)
        optimizer = tf_keras.optimizers.SGD(restored)
        weight = tf.Variable(1.0)
        for _ in range(3):
            optimizer.apply_gradients([(tf.constant(1.0), weight)])
        # The rates of steps 0, 1 and 2.
        assert abs(float(weight.numpy()) - (1 - 0.01 * 3 / 8)) < 1e-6, weight
print("trained")
"""


def test_schedules_that_are_older_than_the_keras(tmp_path):
    result = run_snippet(RESTORED, folder=tmp_path)
    assert result.stdout == "trained\n", result.stderr


# Hides the import, like a tool that has replaced sys.meta_path with its own list.
UNNOTICED = "sys.meta_path[:] = [finder for finder in sys.meta_path if 'lrops' not in type(finder).__module__]"


def test_a_restored_schedule_adopts_a_keras_whose_import_was_not_noticed(tmp_path):
    """Like loky, Spark and Ray: the process imports only what it unpickles, and then its Keras."""
    script = (
        "import copy, pickle, sys, lrops\n"
        "schedule = lrops.WarmupCosineDecay(0.01, 8, 40)\n"
        "saved = pickle.dumps(schedule)\n"
        f"{UNNOTICED}\n"
        "import tf_keras\n"
        "base = tf_keras.optimizers.schedules.LearningRateSchedule\n"
        "assert not isinstance(schedule, base)\n"
        "assert isinstance(pickle.loads(saved), base)\n"
        "(adapted,) = [one for one in type(schedule).__mro__ if base in one.__bases__]\n"
        "adapted.__bases__ = tuple(each for each in adapted.__bases__ if each is not base)\n"
        "assert not isinstance(schedule, base)\n"
        "assert isinstance(copy.deepcopy(schedule), base)\n"
    )
    result = run_snippet(script, folder=tmp_path)
    assert result.returncode == 0, result.stderr


def test_an_optimizer_that_does_not_know_the_schedule_names_the_fix(tmp_path):
    """A Keras whose import was not noticed; and optimizers for which every callable is a function without arguments."""
    script = f"""
import importlib, sys, lrops, tensorflow as tf
schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
{UNNOTICED}
import tf_keras
weight, step = tf.Variable(1.0), tf.Variable(4, dtype=tf.int64)
old = importlib.import_module("tensorflow.python.keras.optimizer_v2.gradient_descent")
for make in (tf_keras.optimizers.SGD, tf.compat.v1.train.GradientDescentOptimizer, old.SGD):
    try:
        make(schedule).apply_gradients([(tf.constant(1.0), weight)])
        schedule()
    except TypeError as error:
        assert "If an optimizer of Keras made the call: import keras (or tf_keras) before lrops" in str(error), error
        assert "keras made it: these take no schedule, so give it lambda: schedule(step)" in str(error), error
    else:
        raise AssertionError(make)
    if make is not tf_keras.optimizers.SGD:
        weight.assign(1.0)
        make(lambda: schedule(step)).apply_gradients([(tf.constant(1.0), weight)])
        assert weight.numpy() == 1 - schedule.on_host(4), weight
"""
    result = run_snippet(script, folder=tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_import_of_a_keras_is_what_it_was(tmp_path):
    """Its loader, its source and a second import; a module named keras that is not Keras; a missing Keras."""
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text("answer = 42\n")
    script = (
        "import importlib, importlib.util, inspect, sys, lrops\n"
        "assert 'tf_keras' not in sys.modules\n"
        "spec = importlib.util.find_spec('tf_keras')\n"
        "import tf_keras\n"
        "assert tf_keras.__loader__.exec_module.__name__ == 'exec_module'\n"
        "assert tf_keras.__spec__.loader is tf_keras.__loader__\n"
        "assert inspect.getsource(tf_keras) and importlib.reload(tf_keras) is tf_keras\n"
        "before = lrops.WarmupCosineDecay.__mro__\n"
        "lrops.WarmupCosineDecay(0.01, 8, 40)\n"
        "assert lrops.WarmupCosineDecay.__mro__ == before\n"
        "for name in [name for name in sys.modules if name.split('.')[0] == 'keras']:\n"
        "    del sys.modules[name]\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import keras\n"
        "assert keras.answer == 42\n"
        "del sys.modules['keras'], sys.path[0]\n"
        "sys.path[:] = []\n"
        "importlib.invalidate_caches()\n"
        "try:\n"
        "    import keras\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name)\n"
    )
    result = run_python("-P" if sys.version_info >= (3, 11) else "-E", "-c", script, folder=tmp_path.parent)
    assert result.stdout == "keras\n", result.stderr


THREADS = """
import importlib, sys, threading, lrops
for name in [name for name in sys.modules if name.split(".")[0] == "keras"]:
    del sys.modules[name]
errors, stop = [], threading.Event()
def make():
    while not stop.is_set():
        try:
            lrops.WarmupCosineDecay(0.01, 8, 40)
            lrops.LearningRateLogger()
        except Exception as error:
            errors.append(error)
            return
makers = [threading.Thread(target=make) for _ in range(2)]
importers = [threading.Thread(target=importlib.import_module, args=[name]) for name in ("keras", "tf_keras")]
for thread in makers + importers:
    thread.start()
for thread in importers:
    thread.join()
stop.set()
for thread in makers:
    thread.join()
assert not errors, errors
import keras, tf_keras
for module in (keras, tf_keras):
    assert issubclass(lrops.WarmupCosineDecay, module.optimizers.schedules.LearningRateSchedule)
    assert issubclass(lrops.LearningRateLogger, module.callbacks.Callback)
    assert module.saving.get_registered_object("lrops>WarmupCosineRestarts") is lrops.WarmupCosineRestarts
    assert lrops.WarmupCosineDecay.__mro__.count(module.optimizers.schedules.LearningRateSchedule) == 1
print("done")
"""


def test_threads_that_import_a_keras_while_others_make_schedules(tmp_path):
    result = run_python("-c", THREADS, folder=tmp_path)
    assert result.stdout == "done\n", result.stderr


def test_keras_on_another_backend(tmp_path):
    script = (
        "import keras, lrops, numpy as np\n"
        "model = keras.Sequential([keras.layers.Dense(1)])\n"
        "model.compile(keras.optimizers.AdamW(lrops.WarmupCosineDecay(0.01, 8, 40)), 'mse')\n"
        "model.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0)\n"
    )
    result = run_python("-c", script, folder=tmp_path, KERAS_BACKEND="jax", TESTS_WITHOUT="")
    assert result.returncode == 1, result
    assert re.search(
        "^TypeError: lrops needs Keras with the TensorFlow backend.*KERAS_BACKEND=tensorflow.* of jax$",
        result.stderr,
        re.M,
    )


@pytest.mark.parametrize("keras", ["keras", "tf_keras"])
def test_a_class_of_the_users_keeps_its_name(tmp_path, keras):
    script = f"""
import {keras} as keras
class Mine: pass
keras.utils.get_custom_objects()["WarmupCosineDecay"] = Mine
import lrops
assert keras.utils.get_custom_objects()["WarmupCosineDecay"] is Mine
"""
    result = run_snippet(script, folder=tmp_path)
    assert result.returncode == 0, result.stderr
