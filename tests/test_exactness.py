"""The numbers: correctly rounded against arbitrary precision, and the same bits on every path."""

import bisect
import functools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from conftest import CORNERS, CURVES, DTYPES, MODES, PRECISION, TOLERANCE_ULP, Curve, InverseSqrt, held_by, schedule_of

from lrops import reference


@mpmath.workprec(400)
def true_rate(curve, step):
    """The definition, in exact integers and 400 bits."""
    s = max(int(step) - curve.start_step, 0)
    peak, first = mpmath.mpf(curve.initial_learning_rate), mpmath.mpf(curve.warmup_start)
    if s < curve.warmup_steps:
        return peak * (first + (1 - first) * mpmath.mpf(s) / curve.warmup_steps)
    if isinstance(curve, InverseSqrt):
        scale = curve.warmup_steps if curve.timescale is None else curve.timescale
        return peak * mpmath.sqrt(mpmath.mpf(scale) / (scale + max(s - curve.warmup_steps - curve.hold_steps, 0)))
    phase, height = (true_decay if isinstance(curve, Curve) else true_restarts)(curve, s)
    decayed = {
        "cosine": lambda: (1 + mpmath.cospi(phase)) / 2,
        "linear": lambda: 1 - phase,
        "minus_sqrt": lambda: 1 - mpmath.sqrt(phase),
    }[getattr(curve, "decay", "cosine")]()
    alpha = mpmath.mpf(curve.alpha)
    return peak * (alpha + (1 - alpha) * height * decayed)


def true_decay(curve, s):
    """How much of the decay is done, and its height, which is 1."""
    decay_start = curve.warmup_steps + curve.hold_steps
    phase = mpmath.mpf(s - decay_start) / (curve.total_steps - decay_start)
    return min(max(phase, 0), 1), 1


def true_restarts(curve, s):
    """How much of the cycle is done, and its height."""
    starts = curve.starts()
    if s >= starts[-1]:
        return 1, 1
    cycle = bisect.bisect_right(starts, s) - 1
    return mpmath.mpf(s - starts[cycle]) / (starts[cycle + 1] - starts[cycle]), mpmath.mpf(curve.m_mul) ** cycle


@functools.cache
def true_rates(curve):
    """At every step of the case table."""
    return [true_rate(curve, step) for step in curve.steps()]


@mpmath.workprec(400)
def distance(rate, true, dtype):
    """|rate - true| in units in the last place of the true value in `dtype`."""
    precision, smallest = PRECISION[dtype]
    if true == 0:
        return 0.0 if rate == 0 else np.inf
    exponent = max(mpmath.frexp(true)[1] - precision, smallest)
    return float(abs(mpmath.mpf(float(rate)) - true) / mpmath.mpf(2) ** exponent)


@pytest.mark.slow  # 150,000 numbers of 400 bits
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compute", ["native", "reference"])
def test_correctly_rounded(compute, dtype):
    checked = 0
    # That the two agree on the others is in test_same_bits_at_random.
    for name, curve in held_by(dtype, CURVES if compute == "native" else CORNERS).items():
        rates = getattr(curve, compute)(curve.steps(), **curve.arguments(dtype=dtype))
        for step, rate, true in zip(curve.steps(), rates, true_rates(curve), strict=True):
            ulp = distance(rate, true, dtype)
            assert ulp <= TOLERANCE_ULP[dtype], (name, curve, int(step), rate, ulp)
            checked += 1
    assert checked > (50_000 if compute == "native" else 20_000)


@pytest.mark.parametrize(
    "dtype", [pytest.param(dtype, marks=[] if dtype == "float32" else pytest.mark.slow) for dtype in DTYPES]
)
@pytest.mark.parametrize("name", CORNERS)
def test_same_bits_in_every_dtype(mode, name, dtype):
    curve = CORNERS[name]
    if not held_by(dtype, {name: curve}):
        pytest.skip(f"{dtype} does not hold a peak of {curve.initial_learning_rate}")
    expected = MODES["python"](curve, curve.steps(), dtype)
    assert mode(curve, curve.steps(), dtype).tobytes() == expected.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CURVES if name not in CORNERS])
def test_same_bits_at_random(mode, name):
    curve = CURVES[name]
    expected = curve.reference(curve.steps(), **curve.arguments())
    assert mode(curve, curve.steps(), "float32").tobytes() == expected.tobytes()


def rounded(value, dtype):
    """A Fraction to the nearest number of `dtype`, ties to even."""
    precision, _ = PRECISION[dtype]
    exponent = math.frexp(float(value))[1] - precision
    return math.ldexp(round(value / Fraction(2) ** exponent), exponent)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_root_that_is_exact_rounds_to_even(mode, dtype):
    """Half of these rates are ties: with an error of 2^-60 some would go the wrong way."""
    roots = np.arange(1025)
    decay = CORNERS["minus_sqrt_ties"]  # of 2^20 steps, so that the square of each number is a step with an exact root
    expected = [rounded(1 - Fraction(int(root), 1024), dtype) for root in roots]
    assert mode(decay, roots**2, dtype).tolist() == expected
    ties = Fraction(1 + 2.0 ** -PRECISION[dtype][0])  # a peak between two numbers of the dtype
    inverse = InverseSqrt(initial_learning_rate=float(ties), warmup_steps=5 * 2**20)
    steps = [inverse.warmup_steps * (2**doublings) ** 2 for doublings in range(14)]
    expected = [rounded(ties / 2**doublings, dtype) for doublings in range(14)]
    assert mode(inverse, np.array(steps), dtype).tolist() == expected


@pytest.mark.parametrize("start_step", [0, -1, 2**40])
def test_every_step_of_a_small_curve(mode, start_step):
    curve = Curve(warmup_steps=50, hold_steps=20, total_steps=500, warmup_start=0.1, start_step=start_step)
    steps = np.arange(start_step - 20, start_step + 550)
    rates = mode(curve, steps, "float32")
    assert rates.tobytes() == reference.warmup_decay(steps, **curve.arguments()).tobytes()
    s = steps - start_step
    assert (np.diff(rates[(s >= 0) & (s <= 50)]) > 0).all()
    assert (rates[(s >= 50) & (s <= 70)] == np.float32(1e-3)).all()
    assert (np.diff(rates[(s >= 70) & (s <= 500)]) < 0).all()
    assert (rates[s >= 500] == np.float32(1e-6)).all()
    assert (rates[s <= 0] == np.float32(1e-4)).all()


def test_a_million_steps_agree_with_the_reference():
    steps = np.arange(1_000_000)
    curve = Curve(warmup_steps=10_000, total_steps=900_001, alpha=0.0)
    for dtype in ("float16", "float32"):
        arguments = curve.arguments(dtype=dtype)
        rates = curve.native(steps, **arguments)
        assert rates.tobytes() == reference.warmup_decay(steps, **arguments).tobytes()


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 4)])
def test_the_rate_has_the_shape_of_the_step(mode, shape):
    steps = np.full(shape, 500, np.int64)
    rates = mode(Curve(), steps, "float32")
    assert rates.shape == shape and rates.dtype == np.float32
    assert (rates == np.float32(5e-4)).all()


@pytest.mark.slow
def test_no_int64_raises_or_gives_nan(mode):
    draw = np.random.default_rng(7)
    steps = draw.integers(-(2**63), 2**63 - 1, 10_000, endpoint=True)
    for curve in CORNERS.values():
        rates = mode(curve, steps, "float32")
        assert np.isfinite(rates).all() and (rates >= 0).all()
        assert (rates <= np.float32(curve.initial_learning_rate)).all()


def test_the_schedule_returns_the_dtype_it_was_asked_for():
    for dtype in DTYPES:
        assert schedule_of(Curve(), dtype)(0).dtype.name == dtype
