"""Bad input raises at once, in Python and in a graph. The error names the argument, the rule and the value."""

import copy
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import MAX_STEPS

import lrops


class Unshown:
    """Like a variable of Keras 3.12 in a graph."""

    def __repr__(self):
        raise NotImplementedError


GOOD = {"initial_learning_rate": 1e-3, "warmup_steps": 10, "total_steps": 100}
WRONG_VALUES = [
    ({"initial_learning_rate": 0.0}, "warmup_target.*Received: initial_learning_rate=0"),
    ({"initial_learning_rate": np.inf}, "finite.*Received: initial_learning_rate=inf"),
    ({"initial_learning_rate": 65520.0, "dtype": "float16"}, "infinity in dtype=float16.*initial_learning_rate=65520"),
    ({"initial_learning_rate": 2.0**-25, "dtype": "float16"}, "round to 0 in dtype=float16"),
    ({"warmup_steps": -1}, "warmup_steps must be at least 0.*warmup_steps=-1"),
    ({"hold_steps": -1}, "hold_steps must be at least 0.*hold_steps=-1"),
    ({"total_steps": 0}, "total_steps must be at least 1.*total_steps=0"),
    ({"total_steps": MAX_STEPS + 1}, "at most 2\\^62.*total_steps=4611686018427387905"),
    ({"start_step": MAX_STEPS + 1}, "start_step must be at least -2\\^62 and at most 2\\^62"),
    ({"start_step": -MAX_STEPS - 1}, "start_step must be at least -2\\^62 and at most 2\\^62"),
    ({"hold_steps": 90}, "warmup_steps=10, hold_steps=90, total_steps=100"),
    ({"warmup_steps": MAX_STEPS, "hold_steps": MAX_STEPS}, "greater than warmup_steps \\+ hold_steps"),
    ({"alpha": -0.1}, "alpha is a ratio of the peak and must lie in \\[0, 1\\].*alpha=-0.1"),
    ({"warmup_start": 1.0000000000000002}, "warmup_start.*warmup_start=1.0000000000000002"),
    ({"dtype": "int32"}, "dtype must be 'float16', 'bfloat16', 'float32' or 'float64'.*'int32'"),
    ({"initial_learning_rate": 10**400}, "initial_learning_rate must be finite.*=1000"),
    ({"total_steps": -(2**70)}, "total_steps must be at least -2\\^62.*total_steps=-1180591620717411303424"),
    ({"name": "a b"}, "name must begin with a letter.*name='a b'"),
    ({"name": ""}, "name must begin with a letter.*name=''"),
]
WRONG_TYPES = [
    *(({name: Unshown()}, f"Received: {name}=a Unshown$") for name in GOOD),
    ({"initial_learning_rate": "1e-3"}, "must be a number.*'1e-3'. Write float\\(...\\) around it$"),
    ({"initial_learning_rate": np.ones(1)}, "initial_learning_rate.*Write float\\(...\\) around its element$"),
    ({"alpha": tf.constant(0.1)}, "alpha must be a number.*Pass its number, such as float\\(variable.numpy\\(\\)\\)$"),
    ({"alpha": "little"}, "alpha must be a number.*'little'$"),
    ({"initial_learning_rate": True}, "initial_learning_rate must be a number.*True"),
    ({"warmup_steps": 10.0}, "warmup_steps counts steps and must be an integer.*10.0. Write 10$"),
    ({"total_steps": 1000.5}, "total_steps counts steps and must be an integer.*1000.5. Write int\\(...\\) around it$"),
    ({"total_steps": np.array(1000)}, "total_steps counts.*array\\(1000\\). Write int\\(...\\) around it$"),
    ({"total_steps": np.float32(1000)}, "total_steps counts.*1000.0\\)?. Write int\\(...\\) around it$"),
    ({"total_steps": "1e3"}, "total_steps counts.*'1e3'. Write int\\(float\\(...\\)\\) around it$"),
    ({"total_steps": np.ones(2)}, "total_steps counts.*array\\(\\[1., 1.\\]\\)$"),
    ({"total_steps": np.nan}, "total_steps counts steps and must be an integer.*nan$"),
    ({"total_steps": True}, "total_steps counts steps and must be an integer.*True$"),
    ({"hold_steps": "5"}, "hold_steps counts steps and must be an integer.*'5'. Write int\\(...\\) around it$"),
    ({"dtype": 32}, "dtype must be the name of a dtype.*32"),
    ({"total_steps": keras.Variable(100)}, "total_steps counts.*such as int\\(optimizer.iterations.numpy\\(\\)\\)$"),
    ({"name": None}, "name must be a string.*None"),
]


@pytest.mark.parametrize(
    ("error", "wrong", "message"),
    [*((ValueError, *row) for row in WRONG_VALUES), *((TypeError, *row) for row in WRONG_TYPES)],
)
def test_a_wrong_argument_raises(error, wrong, message):
    with pytest.raises(error, match=message):
        lrops.WarmupCosineDecay(**GOOD | wrong)


@pytest.mark.parametrize("make", [keras.optimizers.SGD, tf_keras.optimizers.SGD, tf_keras.optimizers.legacy.SGD])
def test_the_number_that_the_error_names_works_under_a_strategy(make):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        optimizer = make(0.1)
        optimizer.iterations.assign(40)
    with pytest.raises(TypeError, match="Pass its number, such as ") as raised:
        lrops.WarmupCosineDecay(0.1, 8, optimizer.iterations)
    assert eval(str(raised.value).partition("such as ")[2]) == 40  # noqa: S307


def test_numpy_numbers_are_numbers():
    schedule = lrops.WarmupCosineDecay(np.float64(1e-3), np.int32(10), np.int64(100), np.float32(0.5))
    config = schedule.get_config()
    assert json.loads(json.dumps(config)) == config
    assert config["warmup_steps"] == 10 and config["alpha"] == 0.5


COUNTS = "step must be of an integer dtype.*(cast your own counter|Keep the count in an int64 variable)"
NO_COUNTS = [np.float16(5), np.longdouble(5), tf.constant(5.0, tf.bfloat16), 5j, True, np.bool_(True), "5", None]
WRONG_STEPS = [
    *((step, TypeError, COUNTS) for step in NO_COUNTS),
    *((step, ValueError, "step must fit in int64") for step in (2**63, -(2**63) - 1, 10**30, [2**64, 1])),
    (keras.Input((), dtype="int64"), (TypeError, ValueError), "KerasTensor"),
    ([[1], [1, 2]], TypeError, "step must be a number or an array"),
]


@pytest.mark.parametrize(("step", "error", "message"), WRONG_STEPS, ids=repr)
@pytest.mark.parametrize("call", ["__call__", "on_host"])
def test_a_step_that_cannot_count_raises(step, error, message, call):
    if step is None and call == "__call__":
        message = "called without a step"
    with pytest.raises(error, match=message):
        getattr(lrops.WarmupCosineDecay(**GOOD), call)(step)


def test_an_argument_cannot_be_assigned():
    schedule = lrops.WarmupCosineDecay(**GOOD)
    for name, value in schedule.get_config().items():
        with pytest.raises(AttributeError, match=f"{name} cannot be assigned.*make a new.*tf.Variable.*{name}="):
            setattr(schedule, name, value)
    schedule.mine = 1  # as a subclass may
    assert copy.deepcopy(schedule).get_config() == schedule.get_config()


WRONG_ATTRIBUTES = [
    ({"initial_learning_rate": "abc"}, "initial_learning_rate must be a decimal number.*'abc'"),
    ({"initial_learning_rate": "nan"}, "finite.*initial_learning_rate=nan"),
    ({"initial_learning_rate": "1e5", "dtype": tf.float16}, "infinity in dtype=float16"),
    ({"start_step": -(2**63)}, "start_step.*start_step=-9223372036854775808"),
]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("wrong, message", WRONG_ATTRIBUTES)
def test_a_wrong_attribute_is_an_invalid_argument(wrong, message, jit_compile):
    attributes = {"initial_learning_rate": "0.001", "warmup_steps": 10, "total_steps": 100} | wrong
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        op = lrops.load_ops().lrops_warmup_decay
        tf.function(lambda step: op(step, **attributes), jit_compile=jit_compile)(tf.constant(1, tf.int64))


def test_symbolic_tensors_are_no_array():
    schedule = lrops.WarmupCosineDecay(**GOOD)

    @tf.function
    def function(step):
        with pytest.raises(TypeError, match=r"as one, tf.stack\(...\)"):
            schedule([step, step + 1])
        with pytest.raises(TypeError, match="in a graph, call the schedule itself"):
            schedule.on_host(step)
        return schedule(tf.stack([step, step + 1]))

    assert function(tf.constant(5)).shape == 2
