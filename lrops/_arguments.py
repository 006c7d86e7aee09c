"""The types of arguments: what a hyper-parameter, a count, a path and a step may be, and the sentence if one is not."""

import numbers
import os
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lrops._hyperparameters import DtypeName, Variable

_INT64 = tf.int64
_STEP_DTYPES = ("int64", "int8", "int16", "int32", "uint8", "uint16", "uint32")


def _is(kind, value):
    return isinstance(value, kind) and not isinstance(value, bool)


def _real(name, value):
    if _is(numbers.Real, value):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} must be finite. Received: {name}={value}") from None
    raise TypeError(f"{name} must be a number. Received: {name}={value!r}")


def _peak(name, value):
    """A number, or the variable that holds it as it was given. The variable's number must be good now."""
    if not callable(getattr(value, "assign", None)):
        return _real(name, value)
    if tuple(value.shape) or "float" not in dtype_name(value):
        raise TypeError(f"{name}, as a variable, must be a floating scalar. Received: {name}={value!r}")
    return value


def _integer(name, value):
    if _is(numbers.Integral, value):
        if -(2**63) <= value < 2**63:
            return int(value)
        raise ValueError(f"{name} must be {'at most ' if value > 0 else 'at least -'}2^62. Received: {name}={value}")
    message = f"{name} counts steps and must be an integer. Received: {name}={value!r}"
    if isinstance(value, float) and value.is_integer():
        message += f". Write {int(value)}"
    elif hasattr(value, "numpy"):
        message += ". Write int(...) around it"
    raise TypeError(message)


def _dtype(name, value):
    value_name = value if isinstance(value, str) else getattr(value, "name", None)
    if value_name is None:
        raise TypeError(f"{name} must be the name of a dtype or a dtype. Received: {name}={value!r}")
    return value_name


def _op_name(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string. Received: {name}={value!r}")
    if not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*", value):  # TensorFlow's rule
        raise ValueError(
            f"{name} must begin with a letter, a digit or a dot, and go on with them or any of _ - / \\ >. "
            f"Received: {name}={value!r}"
        )
    return value


# By the type that _hyperparameters.py declares for a hyper-parameter.
_HYPERPARAMETERS = {
    float: _real,
    float | Variable: _peak,
    int: _integer,
    int | None: lambda name, value: None if value is None else _integer(name, value),
    DtypeName: _dtype,
    str: _op_name,
}


def as_hyperparameter(name: str, declared: Any, value: Any) -> Any:
    """`value` as the type that was declared for this hyper-parameter; TypeError or ValueError if it is none."""
    return _HYPERPARAMETERS[declared](name, value)


def as_count(name: str, value: object) -> int:
    """`value` as an int, if it is an integer of at least 1."""
    if not _is(numbers.Integral, value):
        raise TypeError(f"{name} must be an integer. Received: {name}={value!r}")
    if value < 1:  # type: ignore[operator]
        raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
    return int(value)  # type: ignore[call-overload]


def as_path(name: str, value: Any) -> str | None:
    """`value` as the text of a path, or None if it is None."""
    try:
        return None if value is None else os.fspath(value)
    except TypeError:
        raise TypeError(f"{name} must be a path or None. Received: {name}={value!r}") from None


def dtype_name(value: Any) -> str:
    """The name of the dtype of an array, tensor or variable; a `keras.Variable` has a name for its dtype."""
    return value.dtype if isinstance(value.dtype, str) else value.dtype.name


def unwrap_variable(value: Any) -> Any:
    """The variable inside a `keras.Variable`, which has a name for its dtype; anything else as it is."""
    if not isinstance(value.dtype, str):
        return value
    inner = getattr(value, "value", None)
    if inner is None:
        raise TypeError(f"step must be a number, an array, a tensor or a variable. Received: {value!r}")
    module = type(inner).__module__
    if module.startswith(("jax", "torch")):
        raise TypeError(
            "lrops runs on TensorFlow, and this Keras does not: set KERAS_BACKEND=tensorflow before Keras is imported. "
            f"Received: a keras.Variable over a {type(inner).__name__} of {module.split('.')[0]}"
        )
    return inner


def _integers(step):
    """`step` if it is of an integer dtype that int64 holds; a Python number, or a list of them, as an array."""
    if getattr(step, "dtype", None) is None:
        array = np.asarray(step)
        wide = array.dtype == np.uint64 and array.max() >= 2**63
        if wide or array.dtype == object and all(type(value) is int for value in array.flat):
            raise ValueError(f"step must fit in int64. Received: step={step}")
        step = array
    name = dtype_name(step)
    if name not in _STEP_DTYPES:
        raise TypeError(
            "step must be of an integer dtype that int64 holds, as optimizer.iterations is: cast it yourself, "
            "tf.cast(step, tf.int64), if that is what you mean; for one of tf_keras.optimizers.legacy take its like "
            f"in tf_keras.optimizers. Received: step of dtype {name}"
        )
    return step


def as_step(step: Any) -> Any:
    """`step` as something the op takes: an int64 tensor or variable.

    Args:
        step: Python int, NumPy integer or array, tensor, `tf.Variable` or `keras.Variable`, of an integer dtype that
            int64 holds, of any shape.

    Returns:
        An int64 tensor or variable of the same shape.

    Raises:
        TypeError: the step is not of an integer dtype that int64 holds.
        ValueError: a Python int does not fit in int64.
    """
    dtype = getattr(step, "dtype", None)
    if dtype is _INT64:
        return step
    if dtype != "int64":
        step = _integers(step)
        if dtype_name(step) != "int64":
            return tf.cast(unwrap_variable(step), tf.int64)
    # Not every keras.Variable is a tf.Tensor to the op's fast path; what is inside it is.
    return unwrap_variable(step)


def as_step_on_host(step: Any) -> npt.NDArray[np.int64]:
    """`as_step`, as a NumPy array."""
    return np.asarray(_integers(step)).astype(np.int64)
