"""The learning rate from its definition, in NumPy: what every compiled path is compared with.

Imported by tests and benchmarks only. It must not know the compiled code, and shares nothing with it: extended
precision and the library's sine here, 64-bit integers and a series there.
"""

import numpy as np

_REAL = np.longdouble  # 64 significant bits on x86-64, 113 on aarch64
_FORMATS = {  # significand bits, exponent of the smallest subnormal
    "float16": (11, -24),
    "bfloat16": (8, -133),
    "float32": (24, -149),
    "float64": (53, -1074),
}


def warmup_cosine_decay(
    step,
    initial_learning_rate,
    warmup_steps,
    total_steps,
    alpha=0.001,
    *,
    hold_steps=0,
    warmup_start=0.0,
    start_step=0,
    dtype="float32",
):
    """The learning rate at each step, in extended precision and rounded once.

    Source: linear warmup (Goyal et al. 2017, section 2.2) and one cycle of cosine annealing (Loshchilov and Hutter
    2017, equation 5), written as sin(pi/2 * remaining)**2 = (1 + cos(pi * elapsed)) / 2, which does not cancel.

    Args:
        step: Optimizer steps, an int64 array of any shape.
        initial_learning_rate: The peak, in units of the rate; > 0.
        warmup_steps: Steps to the peak.
        total_steps: Steps to the floor, warmup and hold included.
        alpha: The floor as a ratio of the peak.
        hold_steps: Steps at the peak.
        warmup_start: The first value as a ratio of the peak.
        start_step: The step at which the curve begins.
        dtype: Name of the dtype to round to, one of float16, bfloat16, float32, float64.

    Returns:
        An array of `dtype` of the shape of `step`. bfloat16 needs ml_dtypes to be imported.

    Raises:
        RuntimeError: NumPy's longdouble is no wider than float64 on this platform.
    """
    if np.finfo(_REAL).nmant < 63:
        raise RuntimeError("the reference needs a longdouble wider than float64, and this platform has none")
    last = min(start_step + total_steps, np.iinfo(np.int64).max)
    s = np.clip(np.asarray(step, np.int64), start_step, last).astype(_REAL) - _REAL(start_step)

    one = _REAL(1)
    peak, floor, first = _REAL(initial_learning_rate), _REAL(alpha), _REAL(warmup_start)
    decay_steps = total_steps - warmup_steps - hold_steps
    elapsed = s / _REAL(max(warmup_steps, 1))
    remaining = (_REAL(total_steps) - s) / _REAL(decay_steps)
    pi = _REAL("3.14159265358979323846264338327950288")
    g = np.where(
        s < warmup_steps,
        first + (one - first) * elapsed,
        np.where(
            s <= warmup_steps + hold_steps,
            one,
            floor + (one - floor) * np.sin(pi / 2 * np.minimum(remaining, one)) ** 2,
        ),
    )
    return _rounded(peak * g, dtype)


def _rounded(values, dtype):
    """`values` >= 0 to the nearest number of `dtype`, ties to even, subnormals included, in one rounding."""
    precision, smallest = _FORMATS[dtype]
    exponent = np.maximum(np.frexp(values)[1] - precision, smallest)
    return np.ldexp(np.rint(np.ldexp(values, -exponent)), exponent).astype(np.dtype(dtype))
