"""What only `WarmupCosineRestarts` has: its cycles, its rules, and how it compares with Keras."""

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from conftest import MAX_STEPS, Restarts, schedule_of

import lrops
from lrops import _native, curves, plotting

matplotlib.use("agg")
CURVE = Restarts(initial_learning_rate=0.01, warmup_steps=4, first_decay_steps=8, m_mul=0.5)


@pytest.mark.parametrize("t_mul, m_mul", [(1.0, 1.0), (1.0, 0.8), (2.0, 1.0), (2.0, 0.5), (3.0, 0.9)])
def test_it_is_keras_curve_away_from_the_restarts(t_mul, m_mul):
    """As far as float32 goes, in which Keras computes the part of the cycle that is done."""
    curve = Restarts(first_decay_steps=300, t_mul=t_mul, m_mul=m_mul, alpha=0.01, cycles=7)
    starts = list(curve.starts())
    steps = np.setdiff1d(np.arange(starts[-1]), [start + near for start in starts for near in (-1, 0, 1)])
    old = keras.optimizers.schedules.CosineDecayRestarts(1e-3, 300, t_mul=t_mul, m_mul=m_mul, alpha=0.01)
    np.testing.assert_allclose(schedule_of(curve)(steps), old(steps), rtol=0, atol=2e-6 * 1e-3)


def test_where_keras_goes_wrong():
    schedule = schedule_of(Restarts(alpha=0.0))
    restart = 1000 * (2**12 - 1)
    assert schedule(restart - 1) < 1e-12 and schedule(restart) == np.float32(1e-3)  # Keras restarts at 4,094,999
    assert schedule(-1500) == np.float32(1e-3)  # Keras gives NaN


def test_every_step_of_a_small_curve(mode):
    curve = Restarts(warmup_steps=5, first_decay_steps=10, t_mul=1.5, m_mul=0.5, alpha=0.1, cycles=3, start_step=100)
    steps = np.arange(90, 180)
    rates = mode(curve, steps, "float64")
    assert curve.starts() == [5, 15, 30, 52]  # 10, 15, 22.5 steps
    assert rates.tobytes() == curve.native(steps, **curve.arguments(dtype="float64")).tobytes()
    s = steps - 100
    assert (np.diff(rates[(s >= 0) & (s <= 5)]) > 0).all()
    for first, end, height in ((5, 15, 0.9), (15, 30, 0.45), (30, 52, 0.225)):
        np.testing.assert_allclose(rates[s == first], 1e-3 * (0.1 + height), rtol=1e-15)
        assert (np.diff(rates[(s >= first) & (s < end)]) < 0).all()
    assert (rates[s >= 52] == 1e-4).all() and (rates[s <= 0] == 0).all()


GOOD = {"initial_learning_rate": 1e-3, "warmup_steps": 10, "first_decay_steps": 100}
ENDLESS = "cycles must be given if more than 64 of them end within 2\\^62 steps.*"
WRONG_VALUES = [
    ({"initial_learning_rate": 0.0}, "warmup_target.*initial_learning_rate=0"),
    ({"warmup_steps": -1}, "warmup_steps must be at least 0.*warmup_steps=-1"),
    ({"alpha": 1.5}, "alpha.*alpha=1.5"),
    ({"initial_learning_rate": 1e5, "dtype": "float16"}, "infinity in dtype=float16"),
    ({"first_decay_steps": 0}, "first_decay_steps must be at least 1 .*first_decay_steps=0"),
    ({"first_decay_steps": 2**63}, "first_decay_steps must be at most 2\\^62.*9223372036854775808"),
    ({"t_mul": 0.5}, "t_mul is the ratio.*finite and at least 1.*t_mul=0.5"),
    ({"t_mul": np.nan}, "t_mul.*t_mul=nan"),
    ({"t_mul": np.inf}, "t_mul.*t_mul=inf"),
    ({"m_mul": 0.0}, "m_mul is the ratio.*\\(0, 1\\].*m_mul=0"),
    ({"m_mul": 1.0000000000000002}, "m_mul.*m_mul=1.0000000000000002"),
    ({"m_mul": np.nan}, "m_mul.*m_mul=nan"),
    ({"cycles": 0}, "cycles must be at least 1 .*cycles=0"),
    ({"cycles": -1}, "cycles must be at least 1 .*cycles=-1"),
    ({"cycles": 65, "t_mul": 1.0, "m_mul": 0.5}, "cycles must be at most 64, unless t_mul=1 and m_mul=1.*cycles=65"),
    ({"cycles": 64}, "must end at most 2\\^62 steps after start_step, and 55 of them do.*t_mul=2.*cycles=64"),
    (
        {"first_decay_steps": MAX_STEPS - 9},
        "must end.* 0 of them do.*387895, .*cycles=None.*warmup_steps=10",
    ),
    ({"first_decay_steps": MAX_STEPS // 4, "t_mul": 1.0, "cycles": 4}, "must end.* 3 of them do.*cycles=4"),
    ({"t_mul": 1.5}, ENDLESS + "t_mul=1.5.*cycles=None"),
    ({"t_mul": 1.0, "m_mul": 0.5}, ENDLESS + "m_mul=0.5, cycles=None"),
]
WRONG_TYPES = [
    ({"first_decay_steps": 100.0}, "first_decay_steps counts steps and must be an integer.*100.0. Write 100$"),
    ({"cycles": 5.0}, "cycles.*must be an integer.*5.0. Write 5$"),
    ({"cycles": True}, "cycles.*must be an integer.*True$"),
    ({"t_mul": "2"}, "t_mul must be a number.*'2'"),
    ({"m_mul": None}, "m_mul must be a number.*None"),
]


@pytest.mark.parametrize("wrong, message", WRONG_VALUES)
def test_a_wrong_value_is_a_value_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        lrops.WarmupCosineRestarts(**GOOD | wrong)


@pytest.mark.parametrize("wrong, message", WRONG_TYPES)
def test_a_wrong_type_is_a_type_error(wrong, message):
    with pytest.raises(TypeError, match=message):
        lrops.WarmupCosineRestarts(**GOOD | wrong)


@pytest.mark.parametrize(
    "good",
    [
        {"first_decay_steps": MAX_STEPS - 10},
        {"t_mul": 1.5, "cycles": 64},
        {"t_mul": 1.0, "cycles": (MAX_STEPS - 10) // 100},
        {"cycles": 55},
    ],
)
def test_up_to_its_rules_all_is_good(good):
    assert lrops.WarmupCosineRestarts(**GOOD | good)(10) == np.float32(1e-3)


WRONG_ATTRIBUTES = [
    ({"t_mul": "abc"}, "Lrops>WarmupCosineRestarts: t_mul must be a decimal number.*'abc'"),
    ({"t_mul": "0"}, "t_mul.*t_mul=0"),
    ({"m_mul": "nan"}, "m_mul.*m_mul=nan"),
    ({"cycles": -1}, "cycles must be at least 1.*cycles=-1"),
    ({"first_decay_steps": -(2**63)}, "first_decay_steps.*-9223372036854775808"),
]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("wrong, message", WRONG_ATTRIBUTES)
def test_a_wrong_attribute_is_an_invalid_argument(wrong, message, jit_compile):
    attributes = GOOD | {"initial_learning_rate": "0.001"} | wrong
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        op = lrops.load_ops().lrops_warmup_cosine_restarts
        tf.function(lambda step: op(step, **attributes), jit_compile=jit_compile)(tf.constant(1, tf.int64))


def test_the_step_has_no_gradient():
    step = tf.Variable(5, dtype=tf.int64)
    with tf.GradientTape() as tape:
        rate = schedule_of(CURVE)(step) * 1.0
    assert tape.gradient(rate, step) is None


def test_the_phases_of_a_plot():
    curve = {"warmup_steps": 4, "first_decay_steps": 8, "t_mul": 2.0, "m_mul": 0.5, "cycles": 2, "start_step": 1}
    cycles = [("warmup", 1, 5), ("cycle 1", 5, 13), ("cycle 2", 13, 29)]
    assert curves.phases(curve) == [*cycles, ("floor", 29, None)]
    endless = curves.phases(curve | {"cycles": None})
    assert endless[:3] == cycles and endless[-1] == ("cycle 5", 125, 253)
    assert curves.phases(curve | {"cycles": None, "t_mul": 1e300}) == [*cycles[:2], ("floor", 13, None)]
    assert curves.phases(curve | {"cycles": 1000, "t_mul": 1.0})[-1] == ("cycle 64", 509, 517)


def test_the_landmarks_of_a_curve():
    curve = {"warmup_steps": 4, "first_decay_steps": 8, "t_mul": 2.0, "m_mul": 0.5, "cycles": 2, "start_step": 0}
    warmup = [("start", 0), ("middle of warmup", 2)]
    first = [("peak", 4), ("middle of cycle 1", 8), ("last of cycle 1", 11)]
    second = [("start of cycle 2", 12), ("middle of cycle 2", 20), ("last of cycle 2", 27), ("floor", 28)]
    assert curves.landmarks(curve) == warmup + first + second


def test_a_plot_has_every_corner_of_the_cycles():
    restarts = lrops.WarmupCosineRestarts(1e-3, 100, 1000, cycles=3)
    ax = restarts.plot()
    one = lrops.WarmupCosineRestarts(1e-3, 100, 1000, cycles=1)
    for last in (800, 1100):  # in the only cycle, and at its end
        assert plotting.plot(one, last=last).get_xlim() == (0, last)
    steps, drawn = ax.lines[0].get_data()
    assert {99, 100, 1099, 1100, 3099, 3100, 7100} <= set(steps)
    np.testing.assert_array_equal(drawn, restarts.on_host(steps.astype(np.int64)))
    ax = plotting.plot(restarts, lrops.WarmupCosineDecay(1e-3, 100, 7100))
    assert [line.get_label() for line in ax.lines] == ["decay=restarts", "decay=cosine"]


def test_the_starts_of_cycles():
    assert _native.cycle_starts(warmup_steps=7, first_decay_steps=3, t_mul=1.5, at_most=3) == [7, 10, 14, 21]
    with pytest.raises(ValueError, match="t_mul=inf"):
        _native.cycle_starts(warmup_steps=0, first_decay_steps=1, t_mul=np.inf, at_most=1)
