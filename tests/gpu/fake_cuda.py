"""The launcher over the fake driver. The snippets of test_launcher.py import it, each in its own process."""

import ctypes
import json
import os

import numpy as np

_launcher = ctypes.CDLL(os.environ["LROPS_TEST_LAUNCHER"])
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
CURVE = json.loads(os.environ["LROPS_TEST_CURVE"])


def driver():
    """The fake, with its fake_* functions."""
    library = ctypes.CDLL("libcuda.so.1")
    library.fake_log.restype = library.fake_image.restype = ctypes.c_char_p
    return library


def context(number):
    """A context, by its number."""
    return ctypes.c_ulonglong(number)


def stream(of):
    """A new stream of a context, which it keeps alive."""
    return ctypes.pointer(of)


def launch(steps, of, curve=CURVE, dtype="float32"):
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
    return driver().fake_log().decode().splitlines()
