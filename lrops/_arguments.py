"""Checks the types of arguments, and converts them.

Every error about an argument gives its name, the rule and the value received, and, if the value shows what was meant,
what to write instead. The rules are:

* A hyper-parameter must have its declared type. 1000.0 is not an integer, and True is not a number.
* A step may have any integer dtype that int64 holds. The ops get it as int64.
* A step may also be float32 or float64, because some optimizers cast their count. It must be a whole number. A value
  that cannot be seen, in a graph or on a GPU, is rounded down. A float32 count is exact up to 2^24 updates.
* A variable that mixed precision casts, in the call of a layer, is neither a step nor a peak.
"""

import contextlib
import math
import numbers
import os
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lrops._hyperparameters import DecayName, DtypeName, KerasSchedule, Variable

_INT64 = tf.int64
_INTEGERS = ("int64", "int8", "int16", "int32", "uint8", "uint16", "uint32")
_FLOATS = ("float32", "float64")


def shown(value: object) -> str:
    """A value for an error. Older versions of Keras cannot show a variable in a graph, and raise an error of theirs."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001
        return f"a {type(value).__name__}"


def _is(kind, value):
    return isinstance(value, kind) and not isinstance(value, bool)


def _real(name, value):
    if _is(numbers.Real, value):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} must be finite. Received: {name}={value}") from None
    raise TypeError(f"{name} must be a number. Received: {name}={shown(value)}{_fix(float, value)}")


def _fix(kind, value):
    """The end of an error: what to write, if `value` of a wrong type holds a number that `kind` takes; else ""."""
    if isinstance(value, float) and value.is_integer():
        return f". Write {int(value)}"
    function, around = f"{kind.__name__}(...)", "it"
    shape = getattr(value, "shape", None)
    if isinstance(value, str):  # YAML reads 1e-3, without a dot, as text
        with contextlib.suppress(ValueError):
            kind(value)
            return f". Write {function} around it"
        function = "int(float(...))"
        try:
            fits = float(value).is_integer()
        except ValueError:
            fits = False
    elif shape is None or isinstance(value, np.generic):
        fits = _is(numbers.Real, value) and math.isfinite(value)
    elif isinstance(value, np.ndarray):
        fits, around = value.size == 1, "its element" if value.ndim else "it"
    else:  # a tensor or a variable; only `numpy` is right under every distribution strategy
        number = {int: "int(optimizer.iterations.numpy())", float: "float(variable.numpy())"}[kind]
        return f". Pass its number, such as {number}" if hasattr(value, "numpy") else ""
    return f". Write {function} around {around}" if fits else ""


def _peak(name, value):
    """A number as a float; a variable as it is. The caller checks the number that the variable holds."""
    if not callable(getattr(value, "assign", None)):
        return _real(name, value)
    if tf.TensorShape(value.shape).rank != 0 or "float" not in dtype_name(value):
        raise TypeError(f"{name}, if it is a variable, must be a floating scalar. Received: {name}={shown(value)}")
    return value


def peak_variable(peak: Any) -> Any:
    """The variable that holds a peak, out of a `keras.Variable` if need be. Raises if reading it would cast it."""
    if _is_cast(peak):
        raise TypeError(
            f"initial_learning_rate is a variable that mixed precision casts to {dtype_name(peak)} in the call of this "
            f"layer. Keep the peak in a tf.Variable, which is not cast. Received: initial_learning_rate={shown(peak)}"
        )
    return unwrap_variable(peak)


def _is_cast(variable):
    """Whether Keras casts a variable when it is read here: one of a layer, in its call, under mixed precision."""
    declared = getattr(variable, "true_dtype", None) or getattr(variable, "_dtype", None)  # tf_keras; Keras 3
    return declared is not None and tf.as_dtype(declared).base_dtype != dtype_name(variable)


def _integer(name, value):
    if _is(numbers.Integral, value):
        if -(2**63) <= value < 2**63:
            return int(value)
        raise ValueError(f"{name} must be {'at most ' if value > 0 else 'at least -'}2^62. Received: {name}={value}")
    raise TypeError(f"{name} counts steps and must be an integer. Received: {name}={shown(value)}{_fix(int, value)}")


def _dtype(name, value):
    value_name = value if isinstance(value, str) else getattr(value, "name", None)
    if value_name is None:
        raise TypeError(f"{name} must be the name of a dtype, such as 'float32'. Received: {name}={shown(value)}")
    return value_name


def _text(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string. Received: {name}={shown(value)}")
    return value


def _op_name(name, value):
    if not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*", _text(name, value)):  # TensorFlow's rule
        raise ValueError(
            f"{name} must begin with a letter, a digit or a dot, and may contain only these and _ - / \\ >. "
            f"Received: {name}={shown(value)}"
        )
    return value


# By a type that _hyperparameters.py declares: a function of a name and a value that returns the value as that type, or
# raises a TypeError or a ValueError.
HYPERPARAMETERS: dict[Any, Any] = {
    float: _real,
    float | Variable: _peak,
    int: _integer,
    int | None: lambda name, value: None if value is None else _integer(name, value),
    DtypeName: _dtype,
    DecayName: _text,
    str: _op_name,
    str | None: lambda name, value: None if value is None else _op_name(name, value),
    KerasSchedule: lambda name, value: value,  # LinearWarmup checks it
}


def as_count(name: str, value: object) -> int:
    """`value` as an int. Raises if it is not an integer of at least 1."""
    if not _is(numbers.Integral, value):
        raise TypeError(f"{name} must be an integer. Received: {name}={shown(value)}{_fix(int, value)}")
    if value < 1:  # type: ignore[operator]
        raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
    return int(value)  # type: ignore[call-overload]


def as_path(name: str, value: Any) -> str | None:
    """`value` as a path in a string; None stays None. Raises if TensorFlow does not know the file system."""
    try:
        path = None if value is None else os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{name} must be a path or None. Received: {name}={shown(value)}") from None
    scheme, separator, _ = (path or "").partition("://")
    if separator and scheme not in tf.io.gfile.get_registered_schemes():
        raise ValueError(
            f"{name} must be in a file system that TensorFlow knows: import the package that adds {scheme}://, such as "
            f"tensorflow_io, before this line. Received: {name}={path!r}"
        )
    return path


def dtype_name(value: Any) -> str:
    """The name of the dtype of an array, a tensor or a variable, as it is read here."""
    # Of a keras.Variable, a string; of a variable of TensorFlow 1, a dtype such as int64_ref. In older tf_keras, the
    # `dtype` of a variable that mixed precision casts is that before the cast.
    dtype = getattr(value, "_cast_dtype", None) or value.dtype
    return dtype if isinstance(dtype, str) else getattr(dtype, "name", str(dtype)).removesuffix("_ref")


def unwrap_variable(value: Any) -> Any:
    """The variable inside a `keras.Variable`; anything else as it is."""
    if not isinstance(value.dtype, str):  # only the dtype of a keras.Variable is a string
        return value
    inner = getattr(value, "value", None)
    if inner is None:
        raise TypeError(f"step must be a number, an array, a tensor or a variable. Received: {shown(value)}")
    module = type(inner).__module__
    if module.startswith(("jax", "torch")):
        raise TypeError(
            "lrops needs Keras with the TensorFlow backend: set KERAS_BACKEND=tensorflow before Keras is imported. "
            f"Received: a keras.Variable that holds a {type(inner).__name__} of {module.split('.')[0]}"
        )
    return inner


def _as_array(step, fix):
    try:
        return np.asarray(step)
    except (NotImplementedError, TypeError, ValueError) as error:  # a symbolic tensor; lists of different lengths
        raise TypeError(
            f"step must be a number or an array with known values: {fix}. Received: {shown(step)}"
        ) from error


def _counter(step):
    """`step` if it has an integer dtype, float32 or float64. A Python number, or a list of them, becomes an array."""
    if getattr(step, "dtype", None) is None:
        array = _as_array(step, "pass several tensors as one, tf.stack(...)")
        wide = array.dtype == np.uint64 and array.max() >= 2**63
        if wide or array.dtype == object and all(type(value) is int for value in array.flat):
            raise ValueError(f"step must fit in int64. Received: step={step}")
        step = array
    name = dtype_name(step)
    if name not in _INTEGERS + _FLOATS or _is_cast(step):
        fix = "Pass optimizer.iterations, or cast your own counter: tf.cast(counter, tf.int64)."
        if name in ("float16", "bfloat16") or _is_cast(step):
            fix = "Keep the count in an int64 variable, which mixed precision does not round."
        raise TypeError(
            "step must be of an integer dtype that int64 holds, or float32 or float64. "
            f"{fix} Received: step of dtype {name}"
        )
    return step


def _whole(array):
    """A NumPy array of floating steps as int64. Raises if one is not a whole number or does not fit."""
    if not np.all(np.isfinite(array) & (np.floor(array) == array)):
        raise ValueError(
            "step counts optimizer updates and must be a whole number. Pass optimizer.iterations, or round with "
            f"tf.floor(step). Received: step={array}"
        )
    if np.any((array < -(2.0**63)) | (array >= 2.0**63)):
        raise ValueError(f"step must fit in int64. Received: step={array}")
    return np.asarray(array, np.int64)


def _from_floating(step):
    """A step of float32 or float64 as an int64 tensor."""
    step = unwrap_variable(step)
    if not isinstance(step, np.ndarray | np.generic):
        step = tf.convert_to_tensor(step)
        if not tf.is_symbolic_tensor(step) and "CPU" in step.device:  # reading it from a GPU would wait for the GPU
            step = step.numpy()
    if not isinstance(step, tf.Tensor):
        return tf.constant(_whole(np.asarray(step)))
    # Clip, because devices cast a number beyond int64 to different integers.
    last = float(np.nextafter(step.dtype.as_numpy_dtype(2.0**63), step.dtype.as_numpy_dtype(0)))
    return tf.cast(tf.clip_by_value(tf.floor(step), -(2.0**63), last), tf.int64)


def as_step(step: Any) -> Any:
    """`step` as an int64 tensor or variable, which the ops take. The rules are at the top of this module."""
    dtype = getattr(step, "dtype", None)
    if dtype is _INT64:
        return step
    if dtype != "int64":
        step = _counter(step)
        name = dtype_name(step)
        if name in _FLOATS:
            return _from_floating(step)
        if name != "int64":
            return tf.cast(unwrap_variable(step), tf.int64)
    # The op's fast path does not take every keras.Variable; it takes the variable inside.
    return unwrap_variable(step)


def as_step_on_host(step: Any) -> npt.NDArray[np.int64]:
    """The same as `as_step`, but as a NumPy array."""
    if type(step) is int and -(2**63) <= step < 2**63:  # the logger's steps: a tenth of the time
        return np.asarray(step, np.int64)
    array = _as_array(_counter(step), "in a graph, call the schedule itself")
    return _whole(array) if array.dtype.name in _FLOATS else array.astype(np.int64)
