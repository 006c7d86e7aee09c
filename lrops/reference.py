"""The learning rates by their definition, in NumPy. The tests and the doctor compare every compiled path with it.

It shares no method with the compiled code. This module uses extended precision and the C library's sine; the compiled
code uses 64-bit integers and a series.
"""

import bisect
from fractions import Fraction

import numpy as np

from lrops import _hyperparameters

_REAL = np.longdouble  # 64 significant bits on x86-64, 113 on aarch64
_PI = _REAL("3.14159265358979323846264338327950288")
_FORMATS = {  # significand bits, exponent of the smallest subnormal
    "float16": (11, -24),
    "bfloat16": (8, -133),
    "float32": (24, -149),
    "float64": (53, -1074),
}


def warmup_decay(step, *arguments, decay="cosine", **named):
    """The rates of `lrops.WarmupDecay`, in extended precision and rounded once.

    Each form is chosen so that nothing cancels. The cosine decay (Loshchilov and Hutter 2017, equation 5) is
    sin(pi/2 * remaining)**2 = (1 + cos(pi * elapsed)) / 2. The decay 1 - sqrt(elapsed) (Hägele et al. 2024) is
    remaining / (1 + sqrt(elapsed)).

    Args:
        step: Optimizer steps, an int64 array of any shape.
        arguments, decay, named: The arguments of `lrops.WarmupDecay`, as numbers. For the dtype "bfloat16", ml_dtypes
            must be imported.

    Returns:
        An array of the curve's dtype and of the shape of `step`.

    Raises:
        RuntimeError: NumPy's longdouble is no wider than float64 on this platform.
    """
    curve = _hyperparameters.DecayArguments(*arguments, decay=decay, **named)
    last = min(curve.start_step + curve.total_steps, np.iinfo(np.int64).max)
    s = np.clip(np.asarray(step, np.int64), curve.start_step, last).astype(_REAL) - _REAL(curve.start_step)
    one, floor = _REAL(1), _REAL(curve.alpha)
    decay_start = _REAL(curve.warmup_steps + curve.hold_steps)
    decay_steps = _REAL(curve.total_steps) - decay_start
    elapsed = np.maximum(s - decay_start, 0) / decay_steps
    remaining = np.minimum((_REAL(curve.total_steps) - s) / decay_steps, one)
    decayed = {
        "cosine": lambda: np.sin(_PI / 2 * remaining) ** 2,
        "linear": lambda: remaining,
        "minus_sqrt": lambda: remaining / (one + np.sqrt(elapsed)),
    }[decay]()
    return _rates(curve, s, np.where(s <= decay_start, one, floor + (one - floor) * decayed))


def warmup_inverse_sqrt(step, *arguments, **named):
    """The rates of `lrops.WarmupInverseSqrt`: Vaswani et al. 2017, section 5.3, with any peak and timescale.

    Precision, arguments, result and error are as in `warmup_decay`.
    """
    curve = _hyperparameters.InverseSqrtArguments(*arguments, **named)
    s = np.maximum(np.asarray(step, np.int64), curve.start_step).astype(_REAL) - _REAL(curve.start_step)
    scale = _REAL(curve.warmup_steps if curve.timescale is None else curve.timescale)
    after = np.sqrt(scale / (scale + np.maximum(s - _REAL(curve.warmup_steps + curve.hold_steps), 0)))
    return _rates(curve, s, after)


def warmup_cosine_restarts(step, *arguments, **named):
    """The rates of `lrops.WarmupCosineRestarts`: Loshchilov and Hutter 2017, section 3.

    `m_mul` and `alpha` are as in Keras' `CosineDecayRestarts`. The length and the height of a cycle are exact
    fractions; the length is then rounded to an integer. The rest is as in `warmup_decay`.
    """
    curve = _hyperparameters.RestartsArguments(*arguments, **named)
    step = np.asarray(step, np.int64)
    starts = _cycle_starts(curve.warmup_steps, curve.first_decay_steps, curve.t_mul, curve.cycles)
    steps = [min(max(at - curve.start_step, 0), starts[-1]) for at in step.ravel().tolist()]
    which = [min(max(bisect.bisect_right(starts, s) - 1, 0), len(starts) - 2) for s in steps]
    heights = {cycle: _real(Fraction(curve.m_mul) ** cycle) for cycle in set(which)}
    s = np.array(steps, np.int64).astype(_REAL)
    left = (np.array([starts[cycle + 1] for cycle in which], np.int64).astype(_REAL)) - s
    length = np.array([starts[cycle + 1] - starts[cycle] for cycle in which], np.int64).astype(_REAL)
    height = np.array([heights[cycle] for cycle in which], _REAL)
    one, floor = _REAL(1), _REAL(curve.alpha)
    after = floor + (one - floor) * height * np.sin(_PI / 2 * np.minimum(left / length, one)) ** 2
    return _rates(curve, s, after).reshape(step.shape)


def _cycle_starts(warmup_steps, first_decay_steps, t_mul, cycles):
    """The first step of each cycle, counted from start_step, and the end of the last cycle."""
    if t_mul == 1:
        cycles = (2**62 - warmup_steps) // first_decay_steps if cycles is None else cycles
        return range(warmup_steps, warmup_steps + cycles * first_decay_steps + 1, first_decay_steps)
    starts = [warmup_steps]
    while cycles is None or len(starts) <= cycles:
        end = starts[-1] + round(first_decay_steps * Fraction(t_mul) ** (len(starts) - 1))
        if end > 2**62:
            break
        starts.append(end)
    return starts


def _rates(curve, s, after):
    """The warmup of Goyal et al. 2017 (section 2.2), then the ratios `after` it: times the peak, and rounded."""
    if np.finfo(_REAL).nmant < 63:
        raise RuntimeError("the reference needs a longdouble wider than float64, which this platform does not have")
    first = _REAL(curve.warmup_start)
    warming = first + (1 - first) * (s / _REAL(max(curve.warmup_steps, 1)))
    rates = _REAL(curve.initial_learning_rate) * np.where(s < curve.warmup_steps, warming, after)
    # To the nearest number of the dtype, ties to even, subnormals included, in one rounding.
    precision, smallest = _FORMATS[curve.dtype]
    exponent = np.maximum(np.frexp(rates)[1] - precision, smallest)
    return np.ldexp(np.rint(np.ldexp(rates, -exponent)), exponent).astype(np.dtype(curve.dtype))


def _real(ratio):
    """A Fraction above 0 as a longdouble, exact to 63 bits or more."""
    scale = 63 + ratio.denominator.bit_length() - ratio.numerator.bit_length()
    high, low = divmod(round(ratio * Fraction(2) ** scale), 2**32)
    return np.ldexp(_REAL(high) * 2**32 + low, -scale)
