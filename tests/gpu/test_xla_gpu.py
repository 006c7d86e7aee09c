"""Compiles the schedules with XLA for a GPU, on a machine without one, and checks the kernels and their numbers.

It needs TensorFlow's CUDA build and JAX's CUDA plugin: tools/matrix.py installs both; elsewhere it is skipped.
"""

import ctypes

import gpu_kernels
import numpy as np
import ptx_on_host
import pytest
import tensorflow as tf
import toolchain
from conftest import CORNERS, DTYPES, Curve, Decay, InverseSqrt, Restarts, held_by, schedule_of

RUNNER = """
#include "ptx_of_the_test.h"
extern "C" void run(void* const* parameters, unsigned blocks, unsigned threads) {
  ptx::Run(ptx::kernels.begin()->second, parameters, blocks, threads);
}
"""


@pytest.fixture(autouse=True, scope="module")
def _compiler():
    if gpu_kernels.missing():
        pytest.skip(gpu_kernels.missing())


SCHEDULES = {
    "cosine": schedule_of(Curve()),
    "linear": schedule_of(Decay(decay="linear")),
    "minus_sqrt": schedule_of(Decay(decay="minus_sqrt")),
    "inverse_sqrt": schedule_of(InverseSqrt()),
    "restarts": schedule_of(Restarts(warmup_steps=100)),
}


def single(kernel):
    return kernel.blocks * kernel.threads == 1


def compiled(step, rate, elements):
    function, specs = step(rate, 20, elements)
    return gpu_kernels.compile_for_gpu(function, *specs)


# How many kernels more than at a constant rate. SGD has no other scalar kernel that the evaluation could go into.
@pytest.mark.parametrize(
    ("step", "name", "more"),
    [(gpu_kernels.adamw, name, 1) for name in SCHEDULES]
    + [(gpu_kernels.sgd, name, 2 if name == "restarts" else 1) for name in SCHEDULES],
)
@pytest.mark.parametrize("elements", [100, 100_000])
def test_the_kernels_of_a_step(step, name, more, elements):
    constant, scheduled = compiled(step, 1e-3, elements), compiled(step, SCHEDULES[name], elements)
    assert 20 <= len(constant.kernels) <= 21
    assert len(scheduled.kernels) <= len(constant.kernels) + more
    assert not scheduled.others  # nothing is copied, and the host decides nothing
    added = sum(single(kernel) for kernel in scheduled.kernels) - sum(single(kernel) for kernel in constant.kernels)
    assert added == len(scheduled.kernels) - len(constant.kernels)  # each further kernel has one thread


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_large_update_does_not_evaluate_the_rate_for_each_element(name):
    step = compiled(gpu_kernels.adamw, SCHEDULES[name], 100_000)
    scalar = {kernel.name for kernel in step.kernels if single(kernel)}
    evaluating = {name for name, (_, body) in ptx_on_host.entries(step.ptx).items() if "clz.b64" in body}
    assert evaluating and evaluating <= scalar


def stored(curve, dtype, folder):
    """The bits that XLA's kernel for a GPU stores: its PTX, run on the host."""
    schedule, steps = schedule_of(curve, dtype), curve.steps()
    evaluation = gpu_kernels.compile_for_gpu(
        tf.function(lambda step: schedule(step), jit_compile=True), tf.TensorSpec(steps.shape, tf.int64)
    )
    (kernel,) = evaluation.kernels
    ptx_on_host.write_header(evaluation.ptx, folder)
    (folder / "run.cc").write_text(RUNNER)
    library = folder / f"{len(list(folder.iterdir()))}.so"  # a new name, because dlopen loads a file only once
    toolchain.shared_library(library, folder / "run.cc")
    out = np.zeros(steps.shape, f"u{tf.as_dtype(dtype).size}")
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (steps, out)]
    parameters = (ctypes.c_void_p * 2)(*(ctypes.addressof(pointer) for pointer in pointers))
    ctypes.CDLL(str(library)).run(parameters, kernel.blocks, kernel.threads)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_stores_the_bits_of_the_cpu(dtype, tmp_path):
    """Only restarts whose cycles are alike. For others, three kernels share buffers that XLA laid out."""
    few = ["usual", "longest", "floor_tiny", "linear", "minus_sqrt", "inverse_sqrt", "restarts_alike"]
    names = CORNERS if dtype == "float32" else few
    one_kernel = {
        name: CORNERS[name]
        for name in names
        if not isinstance(CORNERS[name], Restarts) or CORNERS[name].t_mul == 1 == CORNERS[name].m_mul
    }
    curves = held_by(dtype, one_kernel)
    assert {type(curve) for curve in curves.values()} == {Curve, Decay, InverseSqrt, Restarts}
    for name, curve in curves.items():
        expected = curve.native(curve.steps(), **curve.arguments(dtype=dtype))
        bits = stored(curve, dtype, tmp_path)
        np.testing.assert_array_equal(bits, expected.view(bits.dtype), err_msg=name)
