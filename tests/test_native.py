"""The compiled Python module: its arguments, its results, and that it releases the interpreter lock."""

import threading
import time

import numpy as np
import pytest
from conftest import Decay

from lrops import _native

ARGUMENTS = Decay(warmup_steps=10, total_steps=100).arguments(dtype="float32")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": "1"}, "alpha must be a number. Received: alpha='1'"),
        ({"warmup_steps": 1.5}, "warmup_steps must be an integer of 64 bits. Received: warmup_steps=1.5"),
        ({"total_steps": 2**64}, "total_steps must be an integer of 64 bits.*=18446744073709551616"),
        ({"dtype": 3}, "dtype must be a string. Received: dtype=3"),
        ({"decay": None}, "decay must be a string. Received: decay=None"),
        ({"beta": 1.0}, "unknown argument among .*'beta': 1.0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(TypeError, match=message):
        _native.warmup_decay(np.array(5), **ARGUMENTS | wrong)


def test_a_missing_argument_is_named():
    for name in ARGUMENTS:
        with pytest.raises(TypeError, match=f"missing the argument {name}"):
            _native.warmup_decay(np.array(5), **{key: ARGUMENTS[key] for key in ARGUMENTS if key != name})


def test_it_takes_int64_only():
    for step in (5.0, np.array([5.0]), np.array([5], np.uint64), "5"):
        with pytest.raises(TypeError):
            _native.warmup_decay(step, **ARGUMENTS)


def test_an_array_that_is_not_contiguous_is_read_right():
    steps = np.arange(100).reshape(10, 10)
    for view in (steps.T, steps[::2, ::3]):
        expected = _native.warmup_decay(view.copy(), **ARGUMENTS)
        np.testing.assert_array_equal(_native.warmup_decay(view, **ARGUMENTS), expected)


def test_it_releases_the_interpreter_lock():
    steps = np.zeros(20_000_000, np.int64)
    thread = threading.Thread(target=_native.warmup_decay, args=(steps,), kwargs=ARGUMENTS)
    thread.start()
    turns = 0
    while thread.is_alive():  # if the call held the lock, there would be one turn
        time.sleep(0.001)
        turns += 1
    thread.join()
    assert turns > 1
