"""Models that version 0.1 saved load for ever and give the same bits: an op's interface is a promise.

saved/0.1 was made by `python tests/test_saved_by_older.py <folder>` with lrops 0.1.0. After that release the folder
never changes: each later version that makes the promise adds its own folder.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import lrops

SAVED = Path(__file__).parent / "saved"
SHARED = {"initial_learning_rate": 1 / 3, "warmup_steps": 10, "warmup_start": 0.1, "start_step": -1}
CURVE = SHARED | {"total_steps": 2**40, "alpha": 0.01, "hold_steps": 5}
INVERSE_SQRT = SHARED | {"timescale": 48, "hold_steps": 5}
RESTARTS = SHARED | {"first_decay_steps": 7, "t_mul": 1.5, "m_mul": 0.9, "alpha": 0.01, "cycles": 40}
STEPS = [-(2**63), -1, 0, 4, 9, 10, 14, 15, 16, 2**31, 2**39, 2**40 - 2, 2**40, 2**63 - 1]
DTYPES = ("float16", "bfloat16", "float32", "float64")


def bits(rates):
    """Floating numbers as text that holds every bit."""
    return np.asarray(rates).tobytes().hex()


def save(folder):
    """Writes the model, and what it gives."""
    module = tf.Module()
    schedules = {dtype: lrops.WarmupCosineDecay(**CURVE, dtype=dtype) for dtype in DTYPES}
    for decay in ("linear", "minus_sqrt"):
        schedules |= {f"{decay}_{dtype}": lrops.WarmupDecay(**CURVE, decay=decay, dtype=dtype) for dtype in DTYPES}
    schedules |= {f"inverse_sqrt_{dtype}": lrops.WarmupInverseSqrt(**INVERSE_SQRT, dtype=dtype) for dtype in DTYPES}
    schedules |= {f"restarts_{dtype}": lrops.WarmupCosineRestarts(**RESTARTS, dtype=dtype) for dtype in DTYPES}
    # TensorFlow leaves an attribute with its default value out of the file, so the default must not change either.
    schedules["defaults"] = lrops.WarmupCosineDecay(1e-3, 10, 2**40)
    schedules["inverse_sqrt_defaults"] = lrops.WarmupInverseSqrt(1e-3, 10)
    schedules["restarts_defaults"] = lrops.WarmupCosineRestarts(1e-3, 10, 7)
    module.rates = tf.function(
        lambda step: {dtype: schedule(step) for dtype, schedule in schedules.items()},
        input_signature=[tf.TensorSpec([None], tf.int64)],
    )
    tf.saved_model.save(module, folder)
    rates = module.rates(tf.constant(STEPS, tf.int64))
    Path(folder, "rates.json").write_text(json.dumps({name: bits(rate) for name, rate in rates.items()}, indent=1))


@pytest.mark.parametrize("version", sorted(path.name for path in SAVED.iterdir()))
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])  # XLA compiles 23 curves
def test_what_an_older_version_saved(version, jit_compile):
    loaded = tf.saved_model.load(SAVED / version)
    rates = tf.function(loaded.rates, jit_compile=jit_compile)(tf.constant(STEPS, tf.int64))
    expected = json.loads((SAVED / version / "rates.json").read_text())
    assert {name: bits(rate) for name, rate in rates.items()} == expected


if __name__ == "__main__":
    save(sys.argv[1])
