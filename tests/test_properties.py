"""Hypothesis searches for a curve, a step or a node in a file that breaks a rule."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import DTYPES, INT64, MAX_STEPS, PRECISION, Curve, Decay, InverseSqrt, Restarts
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_exactness import TOLERANCE_ULP, distance, true_rates

import lrops

settings.register_profile("ci", deadline=None, derandomize=True, max_examples=300)
settings.load_profile("ci")

ratios = st.floats(0, 1)
decays = st.sampled_from(["cosine", "linear", "minus_sqrt"])
int64s = st.integers(INT64.min, INT64.max)


@st.composite
def curves(draw, longest=MAX_STEPS):
    total = draw(st.integers(1, longest) | st.integers(1, 1000))
    warmup = draw(st.integers(0, total - 1))
    return Decay(
        decay=draw(decays),
        initial_learning_rate=draw(st.floats(1e-30, 1e30) | st.floats(1e-6, 1)),
        warmup_steps=warmup,
        total_steps=total,
        alpha=draw(ratios),
        hold_steps=draw(st.integers(0, total - 1 - warmup)),
        warmup_start=draw(ratios),
        start_step=draw(st.integers(-MAX_STEPS, MAX_STEPS) | st.just(0)),
    )


@st.composite
def inverse_sqrts(draw):
    warmup = draw(st.integers(0, MAX_STEPS) | st.integers(0, 1000))
    scale = st.integers(1, MAX_STEPS) | st.integers(1, 1000)
    return InverseSqrt(
        initial_learning_rate=draw(st.floats(1e-30, 1e30) | st.floats(1e-6, 1)),
        warmup_steps=warmup,
        timescale=draw(scale | st.none() if warmup else scale),
        hold_steps=draw(st.integers(0, MAX_STEPS) | st.just(0)),
        warmup_start=draw(ratios),
        start_step=draw(st.integers(-MAX_STEPS, MAX_STEPS) | st.just(0)),
    )


@st.composite
def restarts(draw):
    cycles = draw(st.integers(1, 64))
    curve = Restarts(
        initial_learning_rate=draw(st.floats(1e-30, 1e30) | st.floats(1e-6, 1)),
        warmup_steps=draw(st.integers(0, 2**40) | st.just(0)),
        first_decay_steps=draw(st.integers(1, 2**40) | st.integers(1, 100)),
        t_mul=draw(st.floats(1, 1.5) | st.floats(1, 1e6) | st.sampled_from([1.0, 1.5, 2.0, 3.0])),
        m_mul=draw(st.floats(0, 1, exclude_min=True)),
        alpha=draw(ratios),
        cycles=cycles,
        warmup_start=draw(ratios),
        start_step=draw(st.integers(-MAX_STEPS, MAX_STEPS) | st.just(0)),
    )
    return dataclasses.replace(curve, cycles=max(1, len(curve.starts()) - 1))  # those that fit


def rates(curve, steps, dtype="float64"):
    steps = [min(max(step, int(INT64.min)), int(INT64.max)) for step in steps]
    return curve.native(np.array(steps, np.int64), **curve.arguments(dtype=dtype))


def check(curve, steps, found, dtype):
    """Whether these rates are correctly rounded."""
    assert (distance(found, true_rates(curve, steps), dtype) <= TOLERANCE_ULP[dtype]).all()


def near(curve, step):
    """A step of the curve or beside it."""
    return curve.start_step + step


@given(curves(), st.data(), st.sampled_from(("float32", "float64")))
def test_every_rate_is_the_true_one(curve, data, dtype):
    inside = st.integers(0, curve.total_steps).map(lambda step: near(curve, step))
    steps = data.draw(st.lists(inside | int64s, min_size=1, max_size=8))
    check(curve, steps, rates(curve, steps, dtype), dtype)


@given(inverse_sqrts(), st.data(), st.sampled_from(("float32", "float64")))
def test_an_inverse_square_root_too(curve, data, dtype):
    held = curve.warmup_steps + curve.hold_steps
    exact = st.integers(1, 40).map(lambda part: held + (part**2 - 1) * (curve.timescale or curve.warmup_steps))
    steps = data.draw(st.lists(st.integers(0, 2 * held) | exact | int64s, min_size=1, max_size=8))
    steps = [min(max(near(curve, step), int(INT64.min)), int(INT64.max)) for step in steps]
    check(curve, steps, rates(curve, steps, dtype), dtype)
    assert (np.diff(rates(curve, sorted({step for step in steps if step >= near(curve, held)}), dtype)) <= 0).all()


@given(restarts(), st.data())
def test_in_every_cycle_too(curve, data):
    at = st.sampled_from(curve.starts()).flatmap(lambda start: st.integers(start - 2, start + 2))
    steps = data.draw(st.lists(at | st.integers(0, curve.starts()[-1]), min_size=1, max_size=8))
    steps = [near(curve, step) for step in steps]
    check(curve, steps, rates(curve, steps, "float32"), "float32")


@given(curves(), st.lists(int64s, min_size=2, max_size=20))
def test_never_above_the_peak_nor_below_the_ends(curve, steps):
    found = rates(curve, steps)
    peak = curve.initial_learning_rate
    lowest = peak * min(curve.alpha, curve.warmup_start)
    assert (found <= peak).all() and (found >= lowest * (1 - 1e-15)).all()


@given(curves(), st.data())
def test_rises_in_warmup_and_never_after(curve, data):
    inside = st.lists(st.integers(0, curve.warmup_steps), min_size=2, max_size=20)
    warmup = rates(curve, [near(curve, step) for step in sorted(data.draw(inside))])
    after = st.lists(st.integers(curve.warmup_steps, MAX_STEPS), min_size=2, max_size=20)
    decay = rates(curve, [near(curve, step) for step in sorted(data.draw(after))])
    assert (np.diff(warmup) >= 0).all() and (np.diff(decay) <= 0).all()


@given(curves(), st.integers(-20, 20), st.data())
def test_scaling_the_peak_scales_the_curve(curve, power, data):
    steps = [near(curve, step) for step in data.draw(st.lists(st.integers(-5, curve.total_steps), min_size=1))]
    scaled = Decay(**curve.arguments(initial_learning_rate=math.ldexp(curve.initial_learning_rate, power)))
    found = rates(curve, steps)
    normal = found >= 2.0**-1000  # a subnormal has fewer digits, and a power of two changes how many
    np.testing.assert_array_equal(rates(scaled, steps)[normal], np.ldexp(found, power)[normal])


@given(curves(2**40), st.integers(-(2**40), 2**40), st.data())
def test_start_step_shifts_the_curve(curve, by, data):
    assume(abs(curve.start_step + by) <= MAX_STEPS)
    steps = [near(curve, step) for step in data.draw(st.lists(st.integers(-5, curve.total_steps + 5), min_size=1))]
    moved = Decay(**curve.arguments(start_step=curve.start_step + by))
    np.testing.assert_array_equal(rates(moved, [step + by for step in steps]), rates(curve, steps))


# ---- The rules again, in exact integers, from the docstrings of the schedules.


def holds(dtype, peak):
    """Whether a peak rounds neither to 0 nor to infinity. float64 has every one."""
    precision, smallest = PRECISION[dtype]
    if dtype == "float64":
        return True
    # Half of the smallest number ties to 0; half a unit above the largest, to infinity.
    bias = 2 - precision - smallest
    return math.ldexp(1, smallest - 1) < peak < math.ldexp(2 - math.ldexp(1, -precision), bias)


def good(curve, dtype):
    """Whether the hyper-parameters keep every rule."""
    if not (0 < curve.initial_learning_rate < math.inf and holds(dtype, curve.initial_learning_rate)):
        return False
    if not (0 <= curve.warmup_start <= 1 and abs(curve.start_step) <= MAX_STEPS):
        return False
    if not 0 <= curve.warmup_steps <= MAX_STEPS:
        return False
    if isinstance(curve, InverseSqrt):
        scale = curve.warmup_steps if curve.timescale is None else curve.timescale
        return 1 <= scale <= MAX_STEPS and 0 <= curve.hold_steps <= MAX_STEPS
    if not 0 <= curve.alpha <= 1:
        return False
    if isinstance(curve, Curve):
        return (
            curve.decay in ("cosine", "linear", "minus_sqrt")
            and 0 <= curve.hold_steps
            and curve.warmup_steps + curve.hold_steps < curve.total_steps <= MAX_STEPS
        )
    if not (curve.first_decay_steps >= 1 and 1 <= curve.t_mul < math.inf and 0 < curve.m_mul <= 1):
        return False
    if curve.cycles is not None and curve.cycles < 1:
        return False
    if curve.t_mul == curve.m_mul == 1:
        return curve.warmup_steps + (curve.cycles or 1) * curve.first_decay_steps <= MAX_STEPS
    if (curve.cycles or 1) > 64:
        return False
    asked = Restarts(**curve.arguments(cycles=curve.cycles or 65))
    fitting = (
        (MAX_STEPS - asked.warmup_steps) // asked.first_decay_steps if asked.t_mul == 1 else len(asked.starts()) - 1
    )
    return fitting >= curve.cycles if curve.cycles else 1 <= fitting <= 64


def mostly(usual, any_at_all):
    """Mostly the usual, sometimes anything."""
    return st.integers(0, 15).flatmap(lambda number: any_at_all if number == 15 else usual)


any_ratio = mostly(ratios, st.floats())
any_peak = mostly(st.sampled_from([1e-3, 1.0, 6e4, 1e-7]) | st.floats(1e-30, 1e30), st.floats())
any_count = mostly(st.integers(0, 1000) | st.integers(0, MAX_STEPS), int64s)
shared = {"initial_learning_rate": any_peak, "warmup_steps": any_count, "warmup_start": any_ratio}
shared |= {"start_step": mostly(st.integers(-MAX_STEPS, MAX_STEPS), int64s)}
any_curve = st.builds(
    Decay,
    **shared,
    alpha=any_ratio,
    total_steps=any_count,
    hold_steps=any_count,
    decay=mostly(decays, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)),
)
any_curve |= st.builds(InverseSqrt, **shared, timescale=st.none() | any_count, hold_steps=any_count)
any_curve |= st.builds(
    Restarts,
    **shared,
    alpha=any_ratio,
    first_decay_steps=any_count,
    t_mul=mostly(st.sampled_from([1.0, 1.5, 2.0, 3.0]) | st.floats(1, 2), st.floats()),
    m_mul=mostly(st.just(1.0) | st.floats(0, 1, exclude_min=True), st.floats()),
    cycles=st.none() | mostly(st.integers(1, 66), int64s),
)


@pytest.mark.slow
@settings(max_examples=3000)
@given(any_curve, st.sampled_from(DTYPES), st.lists(int64s, min_size=1, max_size=2))
def test_the_rules_take_what_is_good_and_nothing_else(curve, dtype, steps):
    try:
        found = rates(curve, steps, dtype)
    except ValueError as error:
        assert not good(curve, dtype), error
        assert "Received: " in str(error)
        return
    assert good(curve, dtype)
    check(curve, steps, found, dtype)


# What a GraphDef may hold: any string instead of a real number, any int64, any dtype the op registers.
reals = st.floats().map(repr) | st.text(max_size=8).filter(str.isprintable) | st.sampled_from(["1e-3", "0", "1", "nan"])
nodes = st.fixed_dictionaries(
    {
        "initial_learning_rate": reals,
        "warmup_steps": int64s | st.integers(0, 10),
        "total_steps": int64s | st.integers(10, 100),
        "alpha": reals,
        "decay": decays,
        "hold_steps": int64s | st.integers(0, 3),
        "warmup_start": reals,
        "start_step": int64s | st.integers(-3, 3),
        "dtype": st.sampled_from([tf.dtypes.as_dtype(name) for name in DTYPES]),
    }
)
OP = lrops.load_ops().lrops_warmup_decay


def test_bytes_that_are_no_text_are_refused_too():  # TensorFlow for Python raised UnicodeDecodeError
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Received: alpha='1\\xff'"):
        OP([0], initial_learning_rate="1", warmup_steps=1, total_steps=10, alpha=b"1\xff")


@given(nodes, st.lists(int64s, max_size=3))
def test_any_node_gives_a_rate_or_says_why_not(attributes, steps):
    try:
        found = OP(tf.constant(steps, tf.int64), **attributes).numpy()
    except tf.errors.InvalidArgumentError as error:
        assert "Lrops>WarmupDecay: " in str(error) and "Received: " in str(error)
        return
    arguments = {
        name: float(value) if isinstance(value, str) and name != "decay" else value
        for name, value in attributes.items()
    }
    expected = Curve.native(np.array(steps, np.int64), **arguments | {"dtype": attributes["dtype"].name})
    assert found.tobytes() == expected.tobytes()
    assert np.isfinite(found.astype(float)).all()
