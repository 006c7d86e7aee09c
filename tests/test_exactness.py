"""The numbers: correctly rounded against arbitrary precision, and the same bits on every path."""

import bisect
import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from conftest import CORNERS, CURVES, DTYPES, MODES, PRECISION, TOLERANCE_ULP, Curve, InverseSqrt, held_by

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


@mpmath.workprec(400)
def true_rates(curve, steps):
    """`true_rate` at each step, as the sum of two significands of 53 bits each, and the exponent of both."""
    found = [mpmath.frexp(true_rate(curve, step)) for step in steps]
    above = [float(significand) for significand, _ in found]
    below = [float(significand - first) for (significand, _), first in zip(found, above, strict=True)]
    exponents = [exponent if significand else -9999 for significand, exponent in found]
    return np.array(above), np.array(below), np.array(exponents)


def distance(rates, true, dtype):
    """|rates - true| in units in the last place of the true values in `dtype`."""
    (above, below, exponents), (precision, smallest) = true, PRECISION[dtype]
    unit = np.maximum(exponents - precision, smallest)
    rates = np.ldexp(rates.astype(np.float64), -unit)
    return np.abs(rates - np.ldexp(above, exponents - unit) - np.ldexp(below, exponents - unit))


@pytest.mark.slow  # 190,000 numbers of 400 bits
@pytest.mark.parametrize("part", range(4))
def test_correctly_rounded(part):
    for name in sorted(CURVES)[part::4]:
        curve, steps = CURVES[name], CURVES[name].steps()
        true = true_rates(curve, steps)
        for dtype in DTYPES:
            if held_by(dtype, {name: curve}):
                arguments = curve.arguments(dtype=dtype)
                native, reference = curve.native(steps, **arguments), curve.reference(steps, **arguments)
                for rates in (native, reference):
                    ulp = distance(rates, true, dtype)
                    assert (ulp <= TOLERANCE_ULP[dtype]).all(), (name, dtype, steps[ulp.argmax()], ulp.max())
                assert dtype == "float64" or native.tobytes() == reference.tobytes(), (name, dtype)


# Each pair of a corner, a dtype and a mode occurs: all products of the three would take four times as long.
TURNS = (
    itertools.product(CORNERS, DTYPES),
    itertools.product([name for name in CURVES if name not in CORNERS], ["float32"]),
)
TURNS = zip(itertools.chain(*TURNS), itertools.cycle(["eager", "graph", "xla"]), strict=False)


@pytest.mark.parametrize(
    ("name", "dtype", "way"),
    [
        pytest.param(name, dtype, way, marks=[] if name in CORNERS and dtype == "float32" else pytest.mark.slow)
        for (name, dtype), way in TURNS
    ],
)
def test_same_bits_in_every_mode(name, dtype, way):
    curve = CURVES[name]
    if not held_by(dtype, {name: curve}):
        pytest.skip(f"{dtype} does not hold a peak of {curve.initial_learning_rate}")
    expected = MODES["python"](curve, curve.steps(), dtype)
    assert MODES[way](curve, curve.steps(), dtype).tobytes() == expected.tobytes()


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


@pytest.mark.slow
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
