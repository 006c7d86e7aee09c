"""What each decay, `WarmupInverseSqrt` and `WarmupCosineRestarts` add to `WarmupCosineDecay`."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
from conftest import INT64, MAX_STEPS, Curve, Decay, InverseSqrt, Restarts, schedule_of

import lrops
from lrops import _native, curves


def test_the_cosine_is_warmup_cosine_decay():
    cosine, decay = lrops.WarmupCosineDecay(1e-3, 10, 100), lrops.WarmupDecay(1e-3, 10, 100, decay="cosine")
    assert cosine(np.arange(110)).numpy().tobytes() == decay(np.arange(110)).numpy().tobytes()


LINE = {"warmup_steps": 50, "hold_steps": 20, "warmup_start": 0.1, "start_step": -1}
CYCLES = {"first_decay_steps": 10, "t_mul": 1.5, "m_mul": 0.5, "cycles": 3}  # of 10, 15 and 22.5 steps
# Each curve; where its rate falls, from which step to which, and from which rate; and the rate at its end.
SMALL = {
    "cosine": (Curve(**LINE, total_steps=500), [(70, 500, 1e-3)], 1e-6),
    "linear": (Decay(**LINE, total_steps=500, decay="linear"), [(70, 500, 1e-3)], 1e-6),
    "minus_sqrt": (Decay(**LINE, total_steps=500, decay="minus_sqrt"), [(70, 500, 1e-3)], 1e-6),
    "inverse_sqrt": (InverseSqrt(**LINE, timescale=7), [(70, 91, 1e-3), (91, 175, 5e-4), (175, 600, 2.5e-4)], None),
    "restarts": (
        Restarts(warmup_steps=5, **CYCLES, alpha=0.1, start_step=100),
        [(5, 15, 1e-3), (15, 30, 5.5e-4), (30, 52, 3.25e-4)],
        1e-4,
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_step_of_a_small_curve(name):
    """In one mode: test_exactness.py compares the modes."""
    curve, falls, end = SMALL[name]
    s = np.arange(-20, 601)
    rates = schedule_of(curve, "float64").on_host(s + curve.start_step)
    assert (np.diff(rates[(s >= 0) & (s <= curve.warmup_steps)]) > 0).all()
    assert (rates[s <= 0] == 1e-3 * curve.warmup_start).all()
    assert (rates[(s >= curve.warmup_steps) & (s <= falls[0][0])] == 1e-3).all()
    for first, last, rate in falls:
        np.testing.assert_allclose(rates[s == first], rate, rtol=1e-15)
        assert (np.diff(rates[(s >= first) & (s < last)]) < 0).all()
    assert end is None or (rates[s >= falls[-1][1]] == end).all()


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


RESTARTS = {"initial_learning_rate": 1e-3, "warmup_steps": 10, "first_decay_steps": 100}
GOOD = {
    lrops.WarmupDecay: {"initial_learning_rate": 1e-3, "warmup_steps": 10, "total_steps": 100, "decay": "linear"},
    lrops.WarmupInverseSqrt: {"initial_learning_rate": 1e-3, "warmup_steps": 10},
    lrops.WarmupCosineRestarts: RESTARTS,
}
ENDLESS = "cycles must be given if more than 64 of them end within 2\\^62 steps.*"
# One for each rule that only this schedule has: test_arguments.py has the others, and test_properties.py all of them.
WRONG = {
    lrops.WarmupDecay: [
        (ValueError, {"decay": "root"}, "'cosine', 'linear' or 'minus_sqrt'.*decay='root'"),
        (ValueError, {"decay": ""}, "decay must be 'cosine'.*decay=''"),
        (TypeError, {"decay": None}, "decay must be a string. Received: decay=None"),
    ],
    lrops.WarmupInverseSqrt: [
        (ValueError, {"timescale": 0}, "timescale must be at least 1.*timescale=0"),
        (ValueError, {"timescale": MAX_STEPS + 1}, "timescale.*at most 2\\^62"),
        (ValueError, {"warmup_steps": 0}, "timescale must be given.*timescale=None"),
        (TypeError, {"timescale": 5.0}, "timescale counts steps.*5.0. Write 5$"),
    ],
    lrops.WarmupCosineRestarts: [
        (ValueError, {"first_decay_steps": 0}, "first_decay_steps must be at least 1 .*first_decay_steps=0"),
        (ValueError, {"first_decay_steps": 2**63}, "first_decay_steps must be at most 2\\^62.*9223372036854775808"),
        (ValueError, {"t_mul": 0.5}, "t_mul is the ratio.*finite and at least 1.*t_mul=0.5"),
        (ValueError, {"t_mul": np.inf}, "t_mul.*t_mul=inf"),
        (ValueError, {"m_mul": 0.0}, "m_mul is the ratio.*\\(0, 1\\].*m_mul=0"),
        (ValueError, {"m_mul": 1.0000000000000002}, "m_mul.*m_mul=1.0000000000000002"),
        (ValueError, {"cycles": 0}, "cycles must be at least 1 .*cycles=0"),
        (
            ValueError,
            {"cycles": 65, "t_mul": 1.0, "m_mul": 0.5},
            "cycles must be at most 64, unless t_mul=1.*cycles=65",
        ),
        (ValueError, {"cycles": 56}, "must end at most 2\\^62 steps after start_step, and 55 of them do.*cycles=56"),
        (ValueError, {"first_decay_steps": MAX_STEPS - 9}, "must end.* 0 of them do.*387895, .*cycles=None"),
        (ValueError, {"first_decay_steps": MAX_STEPS // 4, "t_mul": 1.0, "cycles": 4}, "must end.* 3 of them do"),
        (ValueError, {"t_mul": 1.5}, ENDLESS + "t_mul=1.5.*cycles=None"),
        (ValueError, {"t_mul": 1.0, "m_mul": 0.5}, ENDLESS + "m_mul=0.5, cycles=None"),
        (TypeError, {"t_mul": "2"}, "t_mul must be a number.*'2'"),
    ],
}


@pytest.mark.parametrize(
    ("schedule", "error", "wrong", "message"),
    [(schedule, *row) for schedule, rows in WRONG.items() for row in rows],
)
def test_a_wrong_argument_raises(schedule, error, wrong, message):
    with pytest.raises(error, match=message):
        schedule(**GOOD[schedule] | wrong)


def test_restarts_up_to_their_rules():
    alike = {"t_mul": 1.0, "cycles": (MAX_STEPS - 10) // 100}
    for good in (alike, {"first_decay_steps": MAX_STEPS - 10}, {"t_mul": 1.5, "cycles": 64}, {"cycles": 55}):
        assert lrops.WarmupCosineRestarts(**RESTARTS | good)(10) == np.float32(1e-3)


def test_the_constructors_show_their_arguments():
    assert "total_steps" not in inspect.signature(lrops.WarmupInverseSqrt).parameters
    parameter = inspect.signature(lrops.WarmupDecay).parameters["decay"]
    assert parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty


WRONG_ATTRIBUTES = [
    ("inverse_sqrt", {"timescale": -1}, "timescale must be at least 1.*timescale=-1"),
    ("inverse_sqrt", {"warmup_steps": 0}, "timescale must be given"),
    ("inverse_sqrt", {"initial_learning_rate": "x"}, "WarmupInverseSqrt: initial_learning_rate must be a decimal"),
    ("decay", {"total_steps": 100, "decay": "root"}, "['\"]root['\"]"),  # TensorFlow's own words
    ("cosine_restarts", {"t_mul": "abc"}, "Lrops>WarmupCosineRestarts: t_mul must be a decimal number.*'abc'"),
    ("cosine_restarts", {"m_mul": "nan"}, "m_mul.*m_mul=nan"),
    ("cosine_restarts", {"cycles": -1}, "cycles must be at least 1.*cycles=-1"),
    ("cosine_restarts", {"first_decay_steps": -(2**63)}, "first_decay_steps.*-9223372036854775808"),
]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("op", "wrong", "message"), WRONG_ATTRIBUTES)
def test_a_wrong_attribute_is_an_invalid_argument(op, wrong, message, jit_compile):
    needed = {"first_decay_steps": 100} if op == "cosine_restarts" else {}
    attributes = {"initial_learning_rate": "0.001", "warmup_steps": 10} | needed | wrong
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=message):
        function = getattr(lrops.load_ops(), f"lrops_warmup_{op}")
        tf.function(lambda step: function(step, **attributes), jit_compile=jit_compile)(tf.constant(1, tf.int64))


def test_the_phases_and_landmarks_of_restarts():
    curve = {"warmup_steps": 4, "first_decay_steps": 8, "t_mul": 2.0, "m_mul": 0.5, "cycles": 2, "start_step": 1}
    cycles = [("warmup", 1, 5), ("cycle 1", 5, 13), ("cycle 2", 13, 29)]
    assert curves.phases(curve) == [*cycles, ("floor", 29, None)]
    endless = curves.phases(curve | {"cycles": None})
    assert endless[:3] == cycles and endless[-1] == ("cycle 5", 125, 253)
    assert curves.phases(curve | {"cycles": None, "t_mul": 1e300}) == [*cycles[:2], ("floor", 13, None)]
    assert curves.phases(curve | {"cycles": 1000, "t_mul": 1.0})[-1] == ("cycle 64", 509, 517)
    warmup = [("start", 1), ("middle of warmup", 3)]
    first = [("peak", 5), ("middle of cycle 1", 9), ("last of cycle 1", 12)]
    second = [("start of cycle 2", 13), ("middle of cycle 2", 21), ("last of cycle 2", 28), ("floor", 29)]
    assert curves.landmarks(curve) == warmup + first + second
    assert _native.cycle_starts(warmup_steps=7, first_decay_steps=3, t_mul=1.5, at_most=3) == [7, 10, 14, 21]
    with pytest.raises(ValueError, match="t_mul=inf"):
        _native.cycle_starts(warmup_steps=0, first_decay_steps=1, t_mul=np.inf, at_most=1)
