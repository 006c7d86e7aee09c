"""Keras 3, tf_keras, and tf.keras set to either, each in its own process, as a user starts it."""

import re

import pytest
from processes import output_of, run_python, run_snippet

TRAIN = """
import lrops, numpy as np, tensorflow as tf
keras = keras or tf.keras
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
assert np.asarray(model.optimizer.learning_rate) == schedule.on_host(shown)
print("trained with", keras.__name__)
"""
LEGACY = {"TF_USE_LEGACY_KERAS": "1"}
# How a program begins, with which environment, and with which Keras it trains. None is tf.keras, after lrops.
STARTS = {
    "keras_first": ("import keras", {}, "keras"),
    "tf_keras_first": ("import tf_keras as keras", {}, "tf_keras"),
    "tf_keras_attribute": ("keras = None", {}, "keras"),
    "legacy": ("keras = None", LEGACY, "tf_keras"),
    "both": ("import tf_keras, keras", {}, "keras"),
    "no_keras": ("import sys; sys.modules['keras'] = None; import tf_keras as keras", LEGACY, "tf_keras"),
    "no_tf_keras": ("import sys; sys.modules['tf_keras'] = None; import keras", {}, "keras"),
}


@pytest.mark.parametrize("start", STARTS)
def test_trains(start, tmp_path):
    imports, environment, keras = STARTS[start]
    run = (lambda code, **how: run_python("-c", code, **how)) if environment else run_snippet
    result = run(imports + TRAIN, folder=tmp_path, **environment)
    assert result.returncode == 0, result.stderr
    assert f"trained with {keras}" in result.stdout.replace("keras.api", "keras").replace("_tf_keras.", "")


MADE = """
made = [
    lrops.LinearWarmup(lrops.WarmupInverseSqrt(0.01, 8, warmup_start=1.0), 8),
    lrops.WarmupCosineDecay(0.01, 8, 40),
    lrops.WarmupCosineRestarts(0.01, 8, 40),
    lrops.WarmupDecay(0.01, 8, 40, decay="linear"),
    lrops.WarmupInverseSqrt(0.01, 8),
]
"""
SAVE = f"""
import sys, lrops, numpy as np
keras = __import__(sys.argv[1])
{MADE}
for number, schedule in enumerate(made):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.1), "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
    model.save(sys.argv[1] + str(number) + ".keras")
    print(schedule)
"""
LOAD = """
for number in range(5):
    schedule = keras.models.load_model(sys.argv[1] + str(number) + ".keras").optimizer._learning_rate
    assert type(schedule).__module__ == "lrops.schedules", schedule
    assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    print(schedule)
assert isinstance(lrops.LearningRateLogger(), keras.callbacks.Callback)
"""
HOWS = {
    "import": "import {} as keras",
    "import_module": "import importlib; keras = importlib.import_module('{}')",
    "thread": "import threading\nthread = threading.Thread(target=lambda: __import__('{}'))\n"
    "thread.start()\nthread.join()\nimport {} as keras",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a model of each Keras and each schedule, and what was saved."""
    folder = tmp_path_factory.mktemp("saved")
    for keras in ("keras", "tf_keras"):
        schedules = output_of(SAVE, keras, folder=folder)
    return folder, schedules


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("order", [1, -1], ids=["keras_first", "lrops_first"])
@pytest.mark.parametrize("keras", ["keras", "tf_keras"])
def test_a_process_that_only_loads(saved, keras, order, how):
    folder, schedules = saved
    imports = [HOWS[how].replace("{}", keras), "import lrops"][::order]
    assert output_of("\n".join(["import sys", *imports]) + LOAD, keras, folder=folder) == schedules


RESTORED = f"""
import copy, pickle, sys
import lrops, tensorflow as tf
{MADE}
for one in made:
    saved = pickle.dumps(one)
    import tf_keras
    for restored in (one, pickle.loads(saved), copy.copy(one), copy.deepcopy(one)):
        assert isinstance(restored, tf_keras.optimizers.schedules.LearningRateSchedule)
        optimizer = tf_keras.optimizers.SGD(restored)
        weight = tf.Variable(1.0)
        for _ in range(3):
            optimizer.apply_gradients([(tf.constant(1.0), weight)])
        # The rates of steps 0, 1 and 2.
        assert abs(float(weight.numpy()) - (1 - 0.01 * 3 / 8)) < 1e-6, weight
"""


def test_schedules_that_are_older_than_the_keras(tmp_path):
    output_of(RESTORED, folder=tmp_path)


def test_an_optimizer_that_does_not_know_the_schedule_names_the_fix(tmp_path):
    """A Keras whose import was not noticed; and optimizers for which every callable is a function without arguments.

    A schedule that is copied or restored adopts that Keras: with loky, Spark and Ray a process imports only what it
    unpickles, and then its Keras.
    """
    script = """
import copy, importlib, pickle, sys, lrops, tensorflow as tf
schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
saved = pickle.dumps(schedule)
# Like a tool that has replaced the list with its own.
sys.meta_path[:] = [finder for finder in sys.meta_path if "lrops" not in type(finder).__module__]
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
base = tf_keras.optimizers.schedules.LearningRateSchedule
assert not isinstance(schedule, base)
assert isinstance(pickle.loads(saved), base)
(adapted,) = [one for one in type(schedule).__mro__ if base in one.__bases__]
adapted.__bases__ = tuple(each for each in adapted.__bases__ if each is not base)
assert not isinstance(schedule, base)
assert isinstance(copy.deepcopy(schedule), base)
"""
    output_of(script, folder=tmp_path)


IMPORTS = """
import importlib, importlib.util, inspect, sys, lrops
assert "tf_keras" not in sys.modules
spec = importlib.util.find_spec("tf_keras")
import tf_keras
assert tf_keras.__loader__.exec_module.__name__ == "exec_module"
assert tf_keras.__spec__.loader is tf_keras.__loader__
assert inspect.getsource(tf_keras) and importlib.reload(tf_keras) is tf_keras
before = lrops.WarmupCosineDecay.__mro__
lrops.WarmupCosineDecay(0.01, 8, 40)
assert lrops.WarmupCosineDecay.__mro__ == before
for name in [name for name in sys.modules if name.split(".")[0] == "tf_keras"]:
    del sys.modules[name]
again = importlib.import_module("tf_keras")
assert again is not tf_keras
assert issubclass(lrops.WarmupCosineDecay, again.optimizers.schedules.LearningRateSchedule)
for name in [name for name in sys.modules if name.split(".")[0] == "keras"]:
    del sys.modules[name]
sys.path.insert(0, sys.argv[1])
import keras
assert keras.answer == 42
del sys.modules["keras"]
sys.path[:] = []
importlib.invalidate_caches()
try:
    import keras
except ModuleNotFoundError as error:
    print(error.name)
"""


def test_the_import_of_a_keras_is_what_it_was(tmp_path):
    """Its loader, its source and a second import; a module named keras that is not Keras; a missing Keras."""
    other = tmp_path / "other"
    (other / "keras").mkdir(parents=True)
    (other / "keras" / "__init__.py").write_text("answer = 42\n")
    assert output_of(IMPORTS, other, folder=tmp_path) == "keras\n"


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
"""


def test_threads_that_import_a_keras_while_others_make_schedules(tmp_path):
    output_of(THREADS, folder=tmp_path)


JAX = """
import keras, lrops
optimizer = keras.optimizers.AdamW(lrops.WarmupCosineDecay(0.01, 8, 40))
logger = lrops.LearningRateLogger(optimizer=optimizer)
for call in (lambda: optimizer.apply([keras.ops.ones([])], [keras.Variable(0.0)]), logger.on_train_begin):
    try:
        call()
    except TypeError as error:
        print(error)
"""


def test_keras_on_another_backend(tmp_path):
    result = run_python("-c", JAX, folder=tmp_path, KERAS_BACKEND="jax", TESTS_WITHOUT="")
    said = re.findall("lrops needs Keras with the TensorFlow backend.*KERAS_BACKEND=tensorflow.* of jax", result.stdout)
    assert len(said) == 2, result


def test_a_class_of_the_users_keeps_its_name(tmp_path):
    script = """
import keras, tf_keras
class Mine: pass
names = [module.utils.get_custom_objects() for module in (keras, tf_keras)]
for one in names:
    one["WarmupCosineDecay"] = Mine
import lrops
assert [one["WarmupCosineDecay"] for one in names] == [Mine, Mine]
"""
    output_of(script, folder=tmp_path)
