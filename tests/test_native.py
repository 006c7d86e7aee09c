"""The Python module under the package: what it takes, what it gives, and that it leaves the interpreter free.

Its numbers are in test_exactness.py. It must not need TensorFlow.
"""

import threading
import time

import numpy as np
import pytest

from lrops import _native

ARGUMENTS = {"initial_learning_rate": 1e-3, "warmup_steps": 10, "total_steps": 100}


def test_it_gives_float64_unless_asked_otherwise():
    assert _native.warmup_cosine_decay(np.array(5), **ARGUMENTS).dtype == np.float64
    assert _native.warmup_cosine_decay(np.array([5]), **ARGUMENTS, dtype="float16").dtype == np.float16


@pytest.mark.parametrize("step", [5.0, np.array([5.0]), np.array([5], np.uint64), "5"])
def test_it_takes_int64_only(step):
    with pytest.raises(TypeError):
        _native.warmup_cosine_decay(step, **ARGUMENTS)


def test_an_array_that_is_not_contiguous_is_read_right():
    steps = np.arange(100).reshape(10, 10)
    for view in (steps.T, steps[::2, ::3]):
        expected = _native.warmup_cosine_decay(view.copy(), **ARGUMENTS)
        np.testing.assert_array_equal(_native.warmup_cosine_decay(view, **ARGUMENTS), expected)


def test_its_rules_are_value_errors():
    with pytest.raises(ValueError, match="alpha=2"):
        _native.warmup_cosine_decay(np.array(5), **ARGUMENTS, alpha=2)


def test_it_releases_the_interpreter_lock():
    steps = np.zeros(20_000_000, np.int64)
    thread = threading.Thread(target=_native.warmup_cosine_decay, args=(steps,), kwargs=ARGUMENTS)
    thread.start()
    turns = 0
    while thread.is_alive():  # with the lock held, the first turn would be the last
        time.sleep(0.001)
        turns += 1
    thread.join()
    assert turns > 5
