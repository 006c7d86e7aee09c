"""The launcher over the fake driver. The snippets of test_launcher.py import it, each in its own process."""

import ctypes
import os

import numpy as np

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
# The launcher finds the driver that is already loaded under the name libcuda.so.1.
driver = ctypes.CDLL(os.environ["LROPS_TEST_DRIVER"]) if os.environ.get("LROPS_TEST_DRIVER") else None
if driver and hasattr(driver, "fake_log"):
    driver.fake_log.restype = driver.fake_image.restype = ctypes.c_char_p
_launcher = ctypes.CDLL(os.environ["LROPS_TEST_LAUNCHER"])


def stream(number):
    """A new stream of the context of this number. It keeps the context alive."""
    return ctypes.pointer(ctypes.c_ulonglong(number))


def launch(steps, of, curve, dtype="float32"):
    """The rates' bits and the launcher's error, empty on success. `of` is a stream; None is the null stream."""
    steps = np.ascontiguousarray(steps, np.int64)
    out = np.zeros(steps.shape, f"u{_BYTES[dtype]}")
    error = ctypes.create_string_buffer(8192)
    curve = ({"decay": "cosine"} if "total_steps" in curve else {}) | curve
    lines = (f"{name} {value.hex() if isinstance(value, float) else value}" for name, value in curve.items())
    arrays = [ctypes.c_void_p(steps.ctypes.data), ctypes.c_int64(steps.size), ctypes.c_void_p(out.ctypes.data)]
    _launcher.launch("\n".join(lines).encode(), dtype.encode(), *arrays, of and ctypes.byref(of), error, len(error))
    return out, error.value.decode()


def calls():
    """The log of the fake, one call an entry."""
    return driver.fake_log().decode().splitlines()
