"""Gives the TensorFlow of this process the device of fake_gpu.cc. Also a pytest plugin: `-p fake_gpu`."""

import ctypes
import os
from pathlib import Path

import tensorflow as tf

library = ctypes.CDLL(os.environ["LROPS_TEST_GPU"])
library.fake_log.restype = ctypes.c_char_p


def _load():
    api = ctypes.CDLL(str(Path(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2")))
    for function in (api.TF_NewStatus, api.TF_LoadPluggableDeviceLibrary, api.TF_Message):
        function.restype = ctypes.c_void_p
    status = ctypes.c_void_p(api.TF_NewStatus())
    api.TF_LoadPluggableDeviceLibrary(os.environ["LROPS_TEST_GPU"].encode(), status)
    if api.TF_GetCode(status):
        raise RuntimeError(ctypes.string_at(api.TF_Message(status)).decode())


def launches():
    """How many kernels were launched up to now."""
    return library.fake_log().count(b"cuLaunchKernel")


def copies():
    """How many copies there were up to now, from the device to the host and back."""
    return library.fake_copies_to_host(), library.fake_copies_to_device()


_load()
