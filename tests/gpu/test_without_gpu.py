"""The op library on a machine without a GPU: it carries the GPU kernel, and nothing needs a driver."""

import ctypes
import importlib.metadata
import os
import sys
from pathlib import Path

import pyproject
import pytest
import tensorflow as tf
import toolchain
from conftest import Curve, schedule_of
from packaging.requirements import Requirement
from processes import run_python
from tensorflow.core.framework import kernel_def_pb2

NO_GPU = not tf.config.list_physical_devices("GPU")


def registered_kernels():
    """The devices for which each op of lrops has a kernel: name of the op -> such as {"CPU", "XLA_CPU_JIT"}."""

    class Buffer(ctypes.Structure):  # TF_Buffer
        _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]

    # TensorFlow's Python API has no function for this. Its C API has.
    framework, cc = (
        ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), f"libtensorflow_{name}.so.2")) for name in ("framework", "cc")
    )
    framework.TF_NewStatus.restype = ctypes.c_void_p
    cc.TF_GetAllRegisteredKernels.restype = ctypes.POINTER(Buffer)
    buffer = cc.TF_GetAllRegisteredKernels(ctypes.c_void_p(framework.TF_NewStatus())).contents
    kernels = kernel_def_pb2.KernelList.FromString(ctypes.string_at(buffer.data, buffer.length))
    found = {}
    for kernel in kernels.kernel:
        if kernel.op.startswith("Lrops>"):
            found.setdefault(kernel.op, set()).add(kernel.device_type)
    return found


def test_the_library_registers_a_gpu_kernel():
    for devices in registered_kernels().values():
        assert {"CPU", "GPU"} <= devices
        assert "TPU" not in devices


@pytest.mark.parametrize("group", ["test", "xla-gpu"])
def test_a_group_can_be_installed_with_tensorflows_cuda(group):
    """`tensorflow[and-cuda]` and the group must agree on the version that is installed here."""
    (distribution,) = set(importlib.metadata.packages_distributions()["tensorflow"])
    of_cuda = {}
    for requirement in map(Requirement, importlib.metadata.requires(distribution)):
        if requirement.marker and "and-cuda" in str(requirement.marker):
            of_cuda[requirement.name] = requirement.specifier
    assert "nvidia-cuda-nvrtc-cu12" in of_cuda
    shared = [requirement for requirement in map(Requirement, pyproject.group(group)) if requirement.name in of_cuda]
    assert shared
    for requirement in shared:
        version = importlib.metadata.version(requirement.name)
        assert version in requirement.specifier and version in of_cuda[requirement.name], requirement.name


def test_there_is_none_where_tensorflow_is_built_for_rocm(tmp_path):
    """There an AMD GPU is called "GPU" too. A preloaded function answers for TensorFlow's."""
    (tmp_path / "rocm.cc").write_text("namespace tensorflow { bool IsBuiltWithROCm() { return true; } }")
    toolchain.shared_library(tmp_path / "rocm.so", tmp_path / "rocm.cc")
    script = """
import lrops, tensorflow as tf
import test_without_gpu
assert tf.test.is_built_with_rocm()
tf.constant(0)  # brings up the devices, and XLA's kernels with them
print(*(sorted(devices) for devices in test_without_gpu.registered_kernels().values()))
print(float(lrops.WarmupCosineDecay(0.5, 10, 100)(10)))
"""
    path = os.pathsep.join(path for path in sys.path if path)
    done = run_python("-c", script, folder=tmp_path, PYTHONPATH=path, **toolchain.preloading(tmp_path / "rocm.so"))
    assert done.returncode == 0, done.stderr
    *kernels, rate = done.stdout.splitlines()
    assert "XLA_CPU_JIT" in kernels[0] and "'GPU'" not in kernels[0]
    assert rate == "0.5"


@pytest.mark.skipif(not NO_GPU, reason="TensorFlow sees a GPU")
def test_without_a_gpu_nothing_needs_a_driver_and_gpu_0_is_the_usual_error():
    schedule = schedule_of(Curve())
    assert schedule(1) == tf.function(schedule, jit_compile=True)(1)
    assert "libcuda.so" not in Path("/proc/self/maps").read_text()
    tf.config.set_soft_device_placement(False)
    try:
        with pytest.raises(tf.errors.InvalidArgumentError, match="device.*GPU:0"), tf.device("GPU:0"):
            schedule(1)
    finally:
        tf.config.set_soft_device_placement(True)
