"""XLA's lowering gives the CPU op's bits in the XLA of the installed JAX, which is another version than TensorFlow's.

For a GPU if TensorFlow is its CUDA build, which needs no GPU for that. Otherwise for a CPU: of a vector it is the same.
"""

import contextlib
import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf
from conftest import CURVES, schedule_of

PLATFORM = "GPU" if tf.test.is_built_with_cuda() else "CPU"
# Every kind of curve, every dtype, scalars and arrays.
CASES = [
    ("usual", "float32", ()),
    ("hold", "float64", (1000,)),
    ("linear", "bfloat16", (1000,)),
    ("minus_sqrt", "float32", (1000,)),
    ("minus_sqrt_longest", "float16", (10, 100)),
    ("inverse_sqrt", "float64", ()),
    ("restarts", "float32", (1000,)),
    ("restarts_alike", "bfloat16", ()),
    ("restarts_lower", "float16", (1000,)),
]


@pytest.mark.parametrize(("name", "dtype", "shape"), CASES)
def test_the_lowering_gives_the_bits_of_the_cpu(name, dtype, shape):
    jax = pytest.importorskip("jax")
    from jax import export  # older ones do not import it by themselves
    from jaxlib.mlir.dialects import stablehlo

    schedule = schedule_of(CURVES[name], dtype)
    lower = tf.function(schedule, jit_compile=True).experimental_get_compiler_ir(tf.TensorSpec(shape, tf.int64))
    text = lower(stage="stablehlo", platform_name=PLATFORM)
    assert ("stablehlo.sort" in text) == (PLATFORM == "CPU" and shape == ())  # see learning_rate_xla.cc
    text = re.sub(r"module @\S+", 'module @"lowering"', text)
    with contextlib.ExitStack() as stack:
        wide = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", True)
        stack.callback(jax.config.update, "jax_enable_x64", wide)
        # JAX has no public function for a text, so it takes the place of another function's, in the portable form.
        other = jax.jit(lambda step: step.astype(tf.as_dtype(dtype).as_numpy_dtype))
        exported = export.export(other)(jax.ShapeDtypeStruct(shape, np.int64))
        portable = stablehlo.serialize_portable_artifact_str(text, "1.0.0")
        rate = jax.jit(dataclasses.replace(exported, mlir_module_serialized=portable).call)
        steps = CURVES[name].steps()[:1000]
        for step in steps.reshape(-1, *shape) if shape else steps[:200]:
            assert np.asarray(rate(step)).tobytes() == schedule(tf.constant(step)).numpy().tobytes(), step
