"""The decays of `WarmupDecay`, `WarmupInverseSqrt` (neither end nor floor), and what these and restarts share."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CURVES, INT64, MAX_STEPS, Curve, Decay, InverseSqrt, Restarts, schedule_of
from test_schedule import ROWS, model_of, types_in

import lrops

CASES = {
    decay: Decay(initial_learning_rate=0.01, warmup_steps=8, total_steps=40, decay=decay)
    for decay in ("linear", "minus_sqrt")
}
CASES["inverse_sqrt"] = InverseSqrt(initial_learning_rate=0.01, warmup_steps=8)
CASES["restarts"] = Restarts(initial_learning_rate=0.01, warmup_steps=8, first_decay_steps=8, m_mul=0.5)
CASES["restarts_counted"] = Restarts(
    first_decay_steps=8, t_mul=1.1, cycles=3, alpha=1 / 3, warmup_steps=8, warmup_start=0.1
)
DECAY = {"initial_learning_rate": 1e-3, "warmup_steps": 10, "total_steps": 100, "decay": "linear"}
INVERSE_SQRT = {"initial_learning_rate": 1e-3, "warmup_steps": 10}
every_case = pytest.mark.parametrize("curve", CASES.values(), ids=CASES)


def test_the_cosine_is_warmup_cosine_decay():
    for name, curve in CURVES.items():
        if type(curve) is Curve:
            cosine, decay = (
                one.native(curve.steps(), **one.arguments(dtype="float64"))
                for one in (curve, Decay(**curve.arguments()))
            )
            assert cosine.tobytes() == decay.tobytes(), name
    cosine, decay = lrops.WarmupCosineDecay(1e-3, 10, 100), lrops.WarmupDecay(1e-3, 10, 100, decay="cosine")
    assert cosine(np.arange(110)).numpy().tobytes() == decay(np.arange(110)).numpy().tobytes()


@pytest.mark.parametrize("decay", ["linear", "minus_sqrt"])
def test_every_step_of_a_small_decay(mode, decay):
    curve = Decay(warmup_steps=50, hold_steps=20, total_steps=500, warmup_start=0.1, start_step=-1, decay=decay)
    steps = np.arange(-20, 550)
    rates = mode(curve, steps, "float32")
    assert rates.tobytes() == curve.reference(steps, **curve.arguments()).tobytes()
    s = steps + 1
    assert (rates[(s >= 50) & (s <= 70)] == np.float32(1e-3)).all()
    assert (np.diff(rates[(s >= 70) & (s <= 500)]) < 0).all()
    assert (rates[s >= 500] == np.float32(1e-6)).all()


def test_every_step_of_a_small_inverse_square_root(mode):
    curve = InverseSqrt(warmup_steps=50, hold_steps=20, timescale=7, warmup_start=0.1, start_step=-1)
    steps = np.arange(-20, 550)
    rates = mode(curve, steps, "float32")
    assert rates.tobytes() == curve.reference(steps, **curve.arguments()).tobytes()
    s = steps + 1
    assert (rates[(s >= 50) & (s <= 70)] == np.float32(1e-3)).all()
    assert (np.diff(rates[s >= 70]) < 0).all()
    assert rates[s == 70 + 3 * 7] == np.float32(5e-4) and rates[s == 70 + 15 * 7] == np.float32(2.5e-4)


def test_what_a_difference_would_cancel_is_there():
    """1 - sqrt(1 - u) is u / 2 near the end; as a difference in float32 it is 0."""
    last = 10**6 - 1
    schedule = lrops.WarmupDecay(1.0, 100, 10**6 + 100, 0.0, decay="minus_sqrt")
    assert float(schedule(last + 100)) == np.float32(5e-7 * (1 + 2.5e-7))
    assert np.float32(1) - np.sqrt(np.float32(last / 10**6)) != np.float32(5e-7)


def test_the_inverse_square_root_has_no_end():
    schedule = lrops.WarmupInverseSqrt(1.0, 0, timescale=1, start_step=-MAX_STEPS, dtype="float64")
    n = INT64.max + MAX_STEPS + 1  # 2^63 + 2^62
    assert float(schedule(INT64.max)) == pytest.approx(n**-0.5, rel=2.3e-16, abs=0)


WRONG = [
    (lrops.WarmupDecay, DECAY | {"decay": "root"}, "'cosine', 'linear' or 'minus_sqrt'.*decay='root'"),
    (lrops.WarmupDecay, DECAY | {"decay": ""}, "decay must be 'cosine'.*decay=''"),
    (lrops.WarmupDecay, DECAY | {"alpha": 2.0}, "alpha.*alpha=2"),
    (lrops.WarmupDecay, DECAY | {"hold_steps": 90}, "warmup_steps=10, hold_steps=90, total_steps=100"),
    (lrops.WarmupInverseSqrt, INVERSE_SQRT | {"timescale": 0}, "timescale must be at least 1.*timescale=0"),
    (lrops.WarmupInverseSqrt, INVERSE_SQRT | {"timescale": MAX_STEPS + 1}, "timescale.*at most 2\\^62"),
    (lrops.WarmupInverseSqrt, INVERSE_SQRT | {"warmup_steps": 0}, "timescale must be given.*timescale=None"),
    (lrops.WarmupInverseSqrt, INVERSE_SQRT | {"hold_steps": -1}, "hold_steps must be at least 0.*hold_steps=-1"),
    (lrops.WarmupInverseSqrt, INVERSE_SQRT | {"warmup_start": 1.5}, "warmup_start.*warmup_start=1.5"),
    (lrops.WarmupInverseSqrt, INVERSE_SQRT | {"initial_learning_rate": 0.0}, "initial_learning_rate=0"),
]


@pytest.mark.parametrize(("schedule", "arguments", "message"), WRONG)
def test_a_wrong_value_is_a_value_error(schedule, arguments, message):
    with pytest.raises(ValueError, match=message):
        schedule(**arguments)


WRONG_TYPES = [
    (lambda: lrops.WarmupDecay(**DECAY | {"decay": None}), "decay must be a string. Received: decay=None"),
    (lambda: lrops.WarmupDecay(1e-3, 10, 100), "missing.*'decay'"),
    (lambda: lrops.WarmupInverseSqrt(1e-3, 10, timescale=5.0), "timescale counts steps.*5.0. Write 5$"),
    (lambda: lrops.WarmupInverseSqrt(1e-3, 10, decay="linear"), "unexpected keyword argument 'decay'"),
]


@pytest.mark.parametrize(("make", "message"), WRONG_TYPES)
def test_a_wrong_type_is_a_type_error(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_the_constructors_show_their_arguments():
    assert "total_steps" not in inspect.signature(lrops.WarmupInverseSqrt).parameters
    parameter = inspect.signature(lrops.WarmupDecay).parameters["decay"]
    assert parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty


WRONG_ATTRIBUTES = [
    ("lrops_warmup_inverse_sqrt", {"timescale": -1}, "timescale must be at least 1.*timescale=-1"),
    ("lrops_warmup_inverse_sqrt", {"warmup_steps": 0}, "timescale must be given"),
    ("lrops_warmup_inverse_sqrt", {"initial_learning_rate": "x"}, "WarmupInverseSqrt: initial_learning_rate must be a"),
    ("lrops_warmup_decay", {"total_steps": 100, "decay": "root"}, "['\"]root['\"]"),  # TensorFlow's own words
]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("op", "wrong", "message"), WRONG_ATTRIBUTES)
def test_a_wrong_attribute_is_an_invalid_argument(op, wrong, message, jit_compile):
    attributes = {"initial_learning_rate": "0.001", "warmup_steps": 10} | wrong
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=message):
        function = getattr(lrops.load_ops(), op)
        tf.function(lambda step: function(step, **attributes), jit_compile=jit_compile)(tf.constant(1, tf.int64))


@every_case
def test_config_goes_through_json_and_back(curve):
    schedule = schedule_of(curve)
    config = json.loads(json.dumps(schedule.get_config()))
    assert config == curve.arguments() | {"dtype": "float32", "name": curve.schedule.__name__}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is curve.schedule and vars(again) == vars(schedule)
    assert vars(eval(repr(schedule), {"lrops": lrops})) == vars(schedule)  # noqa: S307


@every_case
def test_an_evaluation_is_one_node(curve):
    op = f"Lrops>{curve.schedule.__name__}"
    assert types_in(schedule_of(curve), tf.TensorSpec([], tf.int64)) == [op]


@every_case
def test_it_trains_is_logged_and_goes_through_a_keras_file(curve, tmp_path):
    model = model_of(keras.optimizers.AdamW(schedule_of(curve)))
    logger = lrops.LearningRateLogger()
    history = model.fit(*ROWS, batch_size=8, epochs=3, verbose=0, callbacks=[logger])
    used = np.array([7, 15, 23])  # by the last batch of each epoch; a cycle of the restarts begins at 16
    assert history.history["learning_rate"] == curve.reference(used, **curve.arguments()).tolist()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert float(again.learning_rate) == curve.reference(24, **curve.arguments())


@every_case
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_variable_holds_the_peak(curve, jit_compile):
    peak = tf.Variable(0.5)
    schedule = curve.schedule(**curve.arguments(initial_learning_rate=peak))
    rates = tf.function(schedule.__call__, jit_compile=jit_compile)
    # The step at which half of the height above the floor is left.
    halves = {"linear": 24, "minus_sqrt": 16, "inverse_sqrt": 32, "restarts": 16, "restarts_counted": 12}
    half = halves[next(name for name, case in CASES.items() if case == curve)]
    floor = getattr(curve, "alpha", 0.0)
    for value in (0.5, 0.25):
        peak.assign(value)
        expected = [value, np.float32(value * (floor + (1 - floor) * 0.5))]
        assert rates(tf.constant([8, half])).numpy().tolist() == expected
        assert schedule.on_host([8, half]).tolist() == expected
