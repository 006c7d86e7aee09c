"""The op library on a machine without CUDA: it carries the GPU kernel, and nothing needs a driver.

Run by pytest. It must not know how the kernel is launched: test_cuda_launcher.py does.
"""

import ctypes
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
import toolchain
from conftest import Curve, schedule_of

NO_GPU = not tf.config.list_physical_devices("GPU")


def _registered_kernels(op):
    """TensorFlow's KernelList for an op, serialised, by its C API."""

    class Buffer(ctypes.Structure):
        _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]

    folder = tf.sysconfig.get_lib()
    framework = ctypes.CDLL(os.path.join(folder, "libtensorflow_framework.so.2"))
    api = ctypes.CDLL(os.path.join(folder, "libtensorflow_cc.so.2"))
    framework.TF_NewStatus.restype = ctypes.c_void_p
    api.TF_GetRegisteredKernelsForOp.restype = ctypes.POINTER(Buffer)
    status = ctypes.c_void_p(framework.TF_NewStatus())
    buffer = api.TF_GetRegisteredKernelsForOp(op.encode(), status)
    assert framework.TF_GetCode(status) == 0
    kernels = ctypes.string_at(buffer.contents.data, buffer.contents.length)
    framework.TF_DeleteBuffer(buffer)
    framework.TF_DeleteStatus(status)
    return kernels


@pytest.mark.parametrize("op", ["Lrops>WarmupCosineDecay", "Lrops>WarmupCosineRestarts"])
def test_the_library_registers_a_gpu_kernel(op):
    toolchain.needs_cuda_build()
    kernels = _registered_kernels(op)
    # In a KernelDef, field 2, the device, is a string: its tag, its length, its text.
    assert b"\x12\x03GPU" in kernels
    assert b"\x12\x03CPU" in kernels
    assert b"\x12\x03TPU" not in kernels


@pytest.mark.skipif(not NO_GPU, reason="TensorFlow sees a GPU")
def test_a_gpu_that_is_not_there_is_the_usual_error():
    tf.config.set_soft_device_placement(False)
    try:
        with pytest.raises(tf.errors.InvalidArgumentError, match="device.*GPU:0"), tf.device("GPU:0"):
            schedule_of(Curve())(1)
    finally:
        tf.config.set_soft_device_placement(True)


@pytest.mark.skipif(not NO_GPU, reason="TensorFlow sees a GPU")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_trains_without_a_driver(jit_compile):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    schedule = schedule_of(Curve(warmup_steps=2, total_steps=10))
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.1), "mse", jit_compile=jit_compile)
    model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=2, verbose=0)
    assert model.optimizer.learning_rate.numpy() == schedule(4).numpy()
    with open("/proc/self/maps") as maps:
        assert "libcuda.so" not in maps.read()
