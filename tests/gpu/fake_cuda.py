"""The launcher over the fake driver. The snippets of test_launcher.py import it, each in its own process."""

import ctypes
import os

import numpy as np

# The launcher finds the driver that is already loaded under the name libcuda.so.1.
driver = ctypes.CDLL(os.environ["LROPS_TEST_DRIVER"]) if os.environ.get("LROPS_TEST_DRIVER") else None
if driver and hasattr(driver, "fake_log"):
    driver.fake_log.restype = driver.fake_image.restype = ctypes.c_char_p
_launcher = ctypes.CDLL(os.environ["LROPS_TEST_LAUNCHER"])


def stream(number):
    """A new stream of the context of this number. It keeps the context alive."""
    return ctypes.pointer(ctypes.c_ulonglong(number))


def launch(steps, of, kernel="lrops_warmup_decay"):
    """The bits of the rates in float32, and the launcher's error, empty on success. `of` is a stream, or None."""
    steps = np.ascontiguousarray(steps, np.int64)
    out = np.zeros(steps.shape, "u4")
    error = ctypes.create_string_buffer(8192)
    arrays = [ctypes.c_void_p(steps.ctypes.data), ctypes.c_int64(steps.size), ctypes.c_void_p(out.ctypes.data)]
    _launcher.launch(kernel.encode(), *arrays, of and ctypes.byref(of), error, len(error))
    return out, error.value.decode()


def calls():
    """The log of the fake, one call an entry."""
    return driver.fake_log().decode().splitlines()
