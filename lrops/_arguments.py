"""The types of arguments: what a hyper-parameter, a count, a path and a step may be, and the sentence if one is not."""

import contextlib
import math
import numbers
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lrops._hyperparameters import DecayName, DtypeName, KerasSchedule, Variable

_INT64 = tf.int64
_INTEGERS = ("int64", "int8", "int16", "int32", "uint8", "uint16", "uint32")
_FLOATS = ("float32", "float64")  # what some optimizers cast their count to


def _is(kind, value):
    return isinstance(value, kind) and not isinstance(value, bool)


def _real(name, value):
    if _is(numbers.Real, value):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} must be finite. Received: {name}={value}") from None
    raise TypeError(f"{name} must be a number. Received: {name}={value!r}{_cure(float, value)}")


def _cure(kind, value):
    """What to write for a value that is not of this kind but holds a number that is, or nothing."""
    if isinstance(value, float) and value.is_integer():
        return f". Write {int(value)}"
    function, around = f"{kind.__name__}(...)", "it"
    shape = getattr(value, "shape", None)
    if isinstance(value, str):  # YAML reads 1e-3, which has no dot, as text
        with contextlib.suppress(ValueError):
            kind(value)
            return f". Write {function} around it"
        function = "int(float(...))"
        try:
            fits = float(value).is_integer()
        except ValueError:
            fits = False
    elif isinstance(value, np.generic) or getattr(shape, "rank", 0) is None:  # or of unknown rank
        fits = isinstance(value, np.generic) and _is(numbers.Real, value) and math.isfinite(value)
    elif shape is not None:
        fits, around = all(size == 1 for size in shape), "its element" if len(shape) else "it"
    else:
        fits = _is(numbers.Real, value) and math.isfinite(value)
    return f". Write {function} around {around}" if fits else ""


def _peak(name, value):
    """A number, or the variable that holds it as it was given. The variable's number must be good now."""
    if not callable(getattr(value, "assign", None)):
        return _real(name, value)
    if tf.TensorShape(value.shape).rank != 0 or "float" not in dtype_name(value):
        raise TypeError(f"{name}, as a variable, must be a floating scalar. Received: {name}={value!r}")
    return value


def _integer(name, value):
    if _is(numbers.Integral, value):
        if -(2**63) <= value < 2**63:
            return int(value)
        raise ValueError(f"{name} must be {'at most ' if value > 0 else 'at least -'}2^62. Received: {name}={value}")
    raise TypeError(f"{name} counts steps and must be an integer. Received: {name}={value!r}{_cure(int, value)}")


def _dtype(name, value):
    value_name = value if isinstance(value, str) else getattr(value, "name", None)
    if value_name is None:
        raise TypeError(f"{name} must be the name of a dtype or a dtype. Received: {name}={value!r}")
    return value_name


def _text(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string. Received: {name}={value!r}")
    return value


def _op_name(name, value):
    if not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*", _text(name, value)):  # TensorFlow's rule
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
    DecayName: _text,
    str: _op_name,
    str | None: lambda name, value: None if value is None else _op_name(name, value),
    KerasSchedule: lambda name, value: value,  # schedules.py knows what is one
}


def as_hyperparameter(name: str, declared: Any, value: Any) -> Any:
    """`value` as the type that was declared for this hyper-parameter; TypeError or ValueError if it is none."""
    return _HYPERPARAMETERS[declared](name, value)


def as_count(name: str, value: object) -> int:
    """`value` as an int, if it is an integer of at least 1."""
    if not _is(numbers.Integral, value):
        raise TypeError(f"{name} must be an integer. Received: {name}={value!r}{_cure(int, value)}")
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
    dtype = value.dtype
    # A variable of TensorFlow 1 is of a dtype such as int64_ref.
    return dtype if isinstance(dtype, str) else getattr(dtype, "name", str(dtype)).removesuffix("_ref")


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


def _as_array(step, cure):
    try:
        return np.asarray(step)
    except (NotImplementedError, TypeError, ValueError) as error:  # a symbolic tensor; lists of different lengths
        raise TypeError(
            f"step must be a number or an array whose values can be seen; {cure}. Received: {step!r}"
        ) from error


def _counter(step):
    """`step` if its dtype can count; a Python number, or a list of them, as an array."""
    if getattr(step, "dtype", None) is None:
        array = _as_array(step, "of several tensors pass one, tf.stack(...)")
        wide = array.dtype == np.uint64 and array.max() >= 2**63
        if wide or array.dtype == object and all(type(value) is int for value in array.flat):
            raise ValueError(f"step must fit in int64. Received: step={step}")
        step = array
    name = dtype_name(step)
    if name not in _INTEGERS + _FLOATS:
        raise TypeError(
            "step must be of an integer dtype that int64 holds, as optimizer.iterations is, or float32 or float64. "
            f"Cast the integer that counts the steps: tf.cast(iterations, tf.int64). Received: step of dtype {name}"
        )
    return step


def _whole(array):
    """A NumPy array of floating steps as int64."""
    if not np.all(np.isfinite(array) & (np.floor(array) == array)):
        raise ValueError(
            "step counts optimizer updates and must be a whole number. Pass optimizer.iterations, or round down with "
            f"tf.floor. Received: step={array}"
        )
    if np.any((array < -(2.0**63)) | (array >= 2.0**63)):
        raise ValueError(f"step must fit in int64. Received: step={array}")
    return np.asarray(array, np.int64)


def _before_cast(tensor):
    """The integer tensor that `tensor` was cast from, if this graph shows it, or None."""
    context = tensor.op._get_control_flow_context()
    while dtype_name(tensor) in _FLOATS:
        operation = tensor.op
        # What another control flow context holds cannot always be used in this one.
        if operation.type not in ("Cast", "Identity") or operation._get_control_flow_context() is not context:
            return None
        (tensor,) = operation.inputs
    return tensor if dtype_name(tensor) in _INTEGERS else None


def _from_floating(step, uncertain):
    """A step of float32 or float64 as an int64 tensor; calls `uncertain` if it is a float32 that may be rounded."""
    step = unwrap_variable(step)
    if not isinstance(step, np.ndarray | np.generic):
        step = tf.convert_to_tensor(step)
        if tf.is_symbolic_tensor(step):
            integer = _before_cast(step)
            if integer is not None:
                return tf.cast(integer, tf.int64)
        elif "CPU" in step.device:  # nothing is waited for
            step = step.numpy()
    seen = not isinstance(step, tf.Tensor)
    if dtype_name(step) == "float32" and not (seen and np.all(np.abs(step) < 2**24)):
        uncertain()
    if seen:
        return tf.constant(_whole(np.asarray(step)))
    # Not every device casts what int64 does not hold to the same number.
    last = float(np.nextafter(step.dtype.as_numpy_dtype(2.0**63), step.dtype.as_numpy_dtype(0)))
    return tf.cast(tf.clip_by_value(tf.floor(step), -(2.0**63), last), tf.int64)


def as_step(step: Any, uncertain: Callable[[], None]) -> Any:
    """`step` as something the op takes: an int64 tensor or variable.

    Args:
        step: Python number, NumPy number or array, tensor, `tf.Variable` or `keras.Variable`, of an integer dtype that
            int64 holds, or of float32 or float64, of any shape. A floating tensor that was cast from an integer in this
            graph stands for that integer: a cast to float32 may have rounded it.
        uncertain: Called if `step` is a float32 that was taken as it is, which beyond 2^24 may be a rounded count.

    Returns:
        An int64 tensor or variable of the same shape.

    Raises:
        TypeError: the dtype of the step is none of these.
        ValueError: a number does not fit in int64, or is not whole where that can be seen without waiting for a device.
            Where it cannot be seen it is rounded down.
    """
    dtype = getattr(step, "dtype", None)
    if dtype is _INT64:
        return step
    if dtype != "int64":
        step = _counter(step)
        name = dtype_name(step)
        if name in _FLOATS:
            return _from_floating(step, uncertain)
        if name != "int64":
            return tf.cast(unwrap_variable(step), tf.int64)
    # Not every keras.Variable is a tf.Tensor to the op's fast path; what is inside it is.
    return unwrap_variable(step)


def as_step_on_host(step: Any) -> npt.NDArray[np.int64]:
    """`as_step`, as a NumPy array."""
    array = _as_array(_counter(step), "in a graph call the schedule itself")
    return _whole(array) if array.dtype.name in _FLOATS else array.astype(np.int64)
