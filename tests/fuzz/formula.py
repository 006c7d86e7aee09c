"""Hyper-parameters and steps that libFuzzer makes of bytes: the rules take the good ones only, and every rate is true.

Run by test_fuzz.py, over an instrumented copy of the package. It must not know the formula: the oracle is that of
test_exactness.py, and the rules stand here a second time, in exact integers.
"""

import math
import sys

import atheris
import numpy as np
from conftest import INT64, MAX_STEPS, PRECISION, TOLERANCE_ULP, Curve, Restarts
from test_exactness import distance, true_rate


def holds(dtype, peak):
    """Whether a peak rounds neither to 0 nor to infinity. float64 has every one."""
    precision, smallest = PRECISION[dtype]
    if dtype == "float64":
        return True
    # Half of the smallest number ties to 0; half a unit above the largest, to infinity.
    bias = 2 - precision - smallest
    return math.ldexp(1, smallest - 1) < peak < math.ldexp(2 - math.ldexp(1, -precision), bias)


def good(curve, dtype):
    """The rules, as the documents of the schedules give them."""
    if not (0 < curve.initial_learning_rate < math.inf and holds(dtype, curve.initial_learning_rate)):
        return False
    if not (0 <= curve.alpha <= 1 and 0 <= curve.warmup_start <= 1 and abs(curve.start_step) <= MAX_STEPS):
        return False
    if not 0 <= curve.warmup_steps <= MAX_STEPS:
        return False
    if isinstance(curve, Curve):
        return 0 <= curve.hold_steps and curve.warmup_steps + curve.hold_steps < curve.total_steps <= MAX_STEPS
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


def clamped(integer):
    return int(min(max(integer, INT64.min), INT64.max))


def made_of(data):
    """A curve, a dtype and steps. Without a byte to say otherwise, a curve that is good."""
    consume = atheris.FuzzedDataProvider(data)

    def integer(least=0):
        """Mostly what the rules take."""
        if consume.ConsumeIntInRange(0, 15) == 15:
            return consume.ConsumeInt(8)
        return consume.ConsumeIntInRange(least, consume.PickValueInList([1000, 2**31, MAX_STEPS]))

    def real(*usual):
        """Mostly one of these, or in [0, 1]."""
        kind = consume.ConsumeIntInRange(0, 15)
        return consume.ConsumeFloat() if kind == 15 else consume.PickValueInList(list(usual)) if kind < 4 else ratio()

    def ratio():
        return consume.ConsumeIntInRange(0, 2**53) / 2**53

    shared = {"initial_learning_rate": real(1e-3, 1.0, 6e4, 1e-7), "warmup_steps": integer(), "alpha": real(0.0, 0.1)}
    shared |= {"warmup_start": real(0.0, 1.0), "start_step": integer(-MAX_STEPS)}
    if consume.ConsumeBool():
        cycles = integer(1) % 67 if consume.ConsumeBool() else None
        t_mul = real(2.0, 1.0, 1.5, 3.0) + consume.ConsumeBool()
        curve = Restarts(**shared, first_decay_steps=integer(1), t_mul=t_mul, m_mul=real(1.0, 0.5), cycles=cycles)
    else:
        hold = integer()
        total = integer(1) if consume.ConsumeBool() else shared["warmup_steps"] + hold + integer(1)
        curve = Curve(**shared, total_steps=clamped(total), hold_steps=hold)
    dtype = consume.PickValueInList(["float32", "float64", "bfloat16", "float16"])
    steps = [integer() for _ in range(2)]
    if good(curve, dtype):
        corners, _ = curve.landmarks()
        steps += [curve.start_step + consume.PickValueInList(corners) + consume.ConsumeIntInRange(-1, 1)]
        steps += [curve.start_step + consume.ConsumeIntInRange(0, corners[-1])]
    return curve, dtype, [clamped(step) for step in steps]


def check(data):
    """Called by libFuzzer for each input; what it raises is a finding."""
    curve, dtype, steps = made_of(data)
    try:
        rates = curve.native(np.array(steps, np.int64), **curve.arguments(dtype=dtype))
    except ValueError as error:
        assert not good(curve, dtype), f"{curve} in {dtype}: {error}"
        return
    assert good(curve, dtype), f"{curve} in {dtype} was taken"
    for step, rate in zip(steps, rates, strict=True):
        ulp = distance(rate, true_rate(curve, int(step)), dtype)
        assert ulp <= TOLERANCE_ULP[dtype], f"{curve} in {dtype} at {step}: {rate}, off by {ulp} units"


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
