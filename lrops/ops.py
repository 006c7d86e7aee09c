"""The ops as Python functions, and the products with a peak in a variable and with another schedule's rate."""

import numpy as np
import tensorflow as tf

from lrops._arguments import as_step, peak_variable, shown
from lrops._loader import load_ops
from lrops._tracing import evaluated_once


def as_attributes(hyperparameters):
    """Hyper-parameters as attributes of an op. A float becomes the decimal string that reads back exactly; None, 0."""
    # TensorFlow has no attribute of type double, and a string is readable in a saved graph.
    attributes = {
        name: repr(value) if isinstance(value, float) else 0 if value is None else value
        for name, value in hyperparameters.items()
    }
    return attributes | {"dtype": tf.as_dtype(attributes["dtype"])}  # a name is not on the eager fast path


def _at_a_step(op):
    """Makes a function of a step, as a user may give it, and of attributes from an op's generated wrapper.

    While a `tf.function` is traced, the function merges repeated evaluations as _tracing.py describes.
    """

    def evaluate(step, attributes):
        counted = as_step(step)
        if tf.executing_eagerly():
            return op(counted, **attributes)
        return evaluated_once(lambda: op(counted, **attributes), step, (op, *attributes.items()))

    return evaluate


warmup_decay = _at_a_step(load_ops().lrops_warmup_decay)
warmup_inverse_sqrt = _at_a_step(load_ops().lrops_warmup_inverse_sqrt)
warmup_cosine_restarts = _at_a_step(load_ops().lrops_warmup_cosine_restarts)


def scaled(rate, peak, dtype):
    """`rate`, in float64 for a peak of 1, times the `peak` in a variable, rounded to `dtype`.

    The product is rounded to float64, for a 16-bit dtype then to float32, and then to `dtype`. Every path rounds in
    this order, and so gives the same bits. In a `tf.function`, repeated products are merged.
    """
    variable = peak_variable(peak)
    return merged(lambda: product(rate, variable, dtype), variable, (rate.ref(), dtype))


def product(ratio, value, dtype):
    """A ratio in float64 times a floating value, rounded to `dtype` in the order that `scaled` describes."""
    exact = ratio * tf.cast(value, tf.float64)
    return tf.cast(exact if dtype in ("float32", "float64") else tf.cast(exact, tf.float32), dtype)


def merged(evaluate, variable, key, **how):
    """`evaluated_once` with the same arguments in a `tf.function`; elsewhere `evaluate()`."""
    # A gradient tape must record each evaluation, because it has no gradient for a tensor from before it began.
    # TensorFlow has no public function to ask whether a tape records, so ask the one that the generated wrappers use.
    if tf.executing_eagerly() or load_ops()._execute.must_record_gradient():
        return evaluate()
    return evaluated_once(evaluate, variable, key, **how)


def scaled_on_host(rate, peak, dtype):
    """The same as `scaled`, on NumPy arrays."""
    product = np.asarray(rate * value_on_host(peak))
    return (product if dtype in ("float32", "float64") else product.astype(np.float32)).astype(dtype)


def value_on_host(peak):
    """A peak as a float. Reading a variable waits for its device."""
    if isinstance(peak, float):
        return peak
    with tf.init_scope():  # reads the variable also while a function is traced
        if not tf.executing_eagerly():
            raise RuntimeError(
                "a variable cannot be read without eager execution, such as in a graph for a session: make the "
                f"schedule with a number as initial_learning_rate. Received: initial_learning_rate={shown(peak)}"
            )
        peak_variable(peak)  # raises if the number would be rounded
        return float(peak.numpy())
