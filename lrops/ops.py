"""The ops as Python functions, the rule of what a step may be, and the product with a peak that a variable holds.

Called by lrops/schedules.py. It must not know Keras' schedules; the loader below it knows where the op comes from.
"""

import numpy as np
import tensorflow as tf

from lrops._loader import load_ops
from lrops._tracing import evaluated_once

as_dtype = tf.as_dtype
_INT64 = tf.int64

for _name in ("Lrops>WarmupCosineDecay", "Lrops>WarmupCosineRestarts"):
    tf.no_gradient(_name)  # a step is an integer


def as_attribute(value):
    """A hyper-parameter as the ops take it: a real as the decimal string that reads back exactly, None as 0."""
    # TensorFlow has no double attribute; and a string can be read in a saved graph.
    return repr(value) if isinstance(value, float) else 0 if value is None else value


def _at_a_step(op):
    """A generated wrapper as a function of what `as_step` gives and of the attributes in cc/ops/warmup_cosine_ops.cc.

    In a `tf.function`, evaluations of a variable that cannot have changed in between are one, where `attributes` is the
    same dict.
    """

    def evaluate(step, attributes):
        return op(step, **attributes) if tf.executing_eagerly() else evaluated_once(op, step, attributes)

    return evaluate


warmup_cosine_decay = _at_a_step(load_ops().lrops_warmup_cosine_decay)
warmup_cosine_restarts = _at_a_step(load_ops().lrops_warmup_cosine_restarts)


def dtype_name(value):
    """The name of the dtype of an array, tensor or variable; a `keras.Variable` has a name for its dtype."""
    return value.dtype if isinstance(value.dtype, str) else value.dtype.name


def _under(value):
    """What is under a `keras.Variable`, the one that has a name for its dtype; anything else as it is."""
    if not isinstance(value.dtype, str):
        return value
    under = getattr(value, "value", None)
    if under is None:
        raise TypeError(f"step must be a number, an array, a tensor or a variable. Received: {value!r}")
    module = type(under).__module__
    if module.startswith(("jax", "torch")):
        raise TypeError(
            "lrops runs on TensorFlow, and this Keras does not: set KERAS_BACKEND=tensorflow before Keras is imported. "
            f"Received: a keras.Variable over a {type(under).__name__} of {module.split('.')[0]}"
        )
    return under


def _integers(step):
    """`step` where it is of an integer dtype that int64 holds; a Python number, or a list of them, as an array."""
    if getattr(step, "dtype", None) is None:
        array = np.asarray(step)
        wide = array.dtype == np.uint64 and array.max() >= 2**63
        if wide or array.dtype == object and all(type(value) is int for value in array.flat):
            raise ValueError(f"step must fit in int64. Received: step={step}")
        step = array
    name = dtype_name(step)
    if name not in ("int64", "int8", "int16", "int32", "uint8", "uint16", "uint32"):
        raise TypeError(
            "step must be of an integer dtype that int64 holds, as optimizer.iterations is: cast it yourself, "
            "tf.cast(step, tf.int64), if that is what you mean; for one of tf_keras.optimizers.legacy take its like "
            f"in tf_keras.optimizers. Received: step of dtype {name}"
        )
    return step


def as_step(step):
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
            return tf.cast(_under(step), tf.int64)
    # Not every keras.Variable is a tf.Tensor to the op's fast path; what is under it is.
    return _under(step)


def as_step_on_host(step):
    """`as_step`, as a NumPy array."""
    return np.asarray(_integers(step)).astype(np.int64)


def scaled(rate, peak, dtype):
    """`rate`, of a curve of peak 1 in float64, times the `peak` that a variable holds, rounded to `dtype`.

    The product is rounded to float64 first, and 16-bit dtypes are reached by way of float32, on every path alike.
    """
    product = rate * tf.cast(_under(peak), tf.float64)
    return tf.cast(product if dtype in ("float32", "float64") else tf.cast(product, tf.float32), dtype)


def scaled_on_host(rate, peak, dtype):
    """`scaled`, of a NumPy array."""
    product = np.asarray(rate * value_on_host(peak))
    return (product if dtype in ("float32", "float64") else product.astype(np.float32)).astype(dtype)


def value_on_host(peak):
    """The number that `peak` is, or that the variable holds, as a float. Waits for the variable's device."""
    if isinstance(peak, float):
        return peak
    with tf.init_scope():  # also while a function is traced
        return float(peak.numpy())
