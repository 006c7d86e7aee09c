"""What XLA makes of the schedules for a GPU, on a machine without one: the kernels of a step, and their numbers.

It needs TensorFlow's CUDA build and JAX's CUDA plugin: tools/matrix.py installs both; elsewhere it is skipped.
"""

import ctypes

import numpy as np
import ptx_on_host
import pytest
import tensorflow as tf
import toolchain
import xla_gpu
from conftest import CORNERS, DTYPES, Curve, held_by, schedule_of

from lrops import benchmark

RUNNER = """
#include "ptx_of_the_test.h"
extern "C" void run(void* const* parameters, unsigned blocks, unsigned threads) {
  ptx::Run(ptx::kernels.begin()->second, parameters, blocks, threads);
}
"""


@pytest.fixture(autouse=True, scope="module")
def _compiler():
    if xla_gpu.missing():
        pytest.skip(xla_gpu.missing())


@pytest.mark.parametrize("elements", [100, 100_000])
def test_a_step_has_at_most_one_kernel_more_than_at_a_constant_rate(elements):
    rates = benchmark.contenders(["constant", "lrops"])
    steps = {name: xla_gpu.adamw(rate, 20, elements) for name, rate in rates.items()}
    compiled = {name: xla_gpu.compile_for_gpu(step, *specs) for name, (step, specs) in steps.items()}
    assert 20 <= len(compiled["constant"].kernels) <= 21
    assert len(compiled["lrops"].kernels) <= len(compiled["constant"].kernels) + 1
    assert not compiled["lrops"].others  # nothing is copied, and the host decides nothing


def test_a_large_update_does_not_evaluate_the_rate_for_each_element():
    step, specs = xla_gpu.adamw(benchmark.contenders(["lrops"])["lrops"], 20, 100_000)
    compiled = xla_gpu.compile_for_gpu(step, *specs)
    single = {kernel.name for kernel in compiled.kernels if kernel.blocks * kernel.threads == 1}
    evaluating = {name for name, (_, body) in ptx_on_host.entries(compiled.ptx).items() if "mul.hi.u64" in body}
    assert evaluating and evaluating <= single


def stored(curve, dtype, folder):
    """The bits that XLA's kernel for a GPU stores: its PTX, run on the host."""
    schedule, steps = schedule_of(curve, dtype), curve.steps()
    compiled = xla_gpu.compile_for_gpu(
        tf.function(lambda step: schedule(step), jit_compile=True), tf.TensorSpec(steps.shape, tf.int64)
    )
    (kernel,) = compiled.kernels
    ptx_on_host.write_header(compiled.ptx, folder)
    (folder / "run.cc").write_text(RUNNER)
    library = folder / f"{len(list(folder.iterdir()))}.so"  # a name of its own: dlopen gives a file only once
    toolchain.shared_library(library, folder / "run.cc")
    out = np.zeros(steps.shape, f"u{tf.as_dtype(dtype).size}")
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (steps, out)]
    parameters = (ctypes.c_void_p * 2)(*(ctypes.addressof(pointer) for pointer in pointers))
    ctypes.CDLL(str(library)).run(parameters, kernel.blocks, kernel.threads)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_stores_the_bits_of_the_cpu(dtype, tmp_path):
    """Restarts are left out: XLA finds the cycle by a reduction, whose threads meet."""
    names = CORNERS if dtype == "float32" else ["usual", "longest", "floor_tiny"]
    curves = held_by(dtype, {name: CORNERS[name] for name in names if isinstance(CORNERS[name], Curve)})
    assert len(curves) >= 3
    for name, curve in curves.items():
        expected = curve.native(curve.steps(), **curve.arguments(dtype=dtype))
        bits = stored(curve, dtype, tmp_path)
        np.testing.assert_array_equal(bits, expected.view(bits.dtype), err_msg=name)
