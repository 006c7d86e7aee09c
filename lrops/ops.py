"""The ops as Python functions, and the products with what only TensorFlow knows: a variable's peak, another's rate."""

import numpy as np
import tensorflow as tf

from lrops._arguments import unwrap_variable
from lrops._loader import load_ops
from lrops._tracing import evaluated_once


def as_attributes(hyperparameters):
    """Hyper-parameters as the attributes of an op: a real as the decimal string that reads back exactly, None as 0."""
    # TensorFlow has no double attribute; and a string can be read in a saved graph.
    attributes = {
        name: repr(value) if isinstance(value, float) else 0 if value is None else value
        for name, value in hyperparameters.items()
    }
    return attributes | {"dtype": tf.as_dtype(attributes["dtype"])}  # a mere name would leave the eager fast path


def _at_a_step(op):
    """A generated wrapper as a function of what `as_step` gives and of the attributes in cc/ops/learning_rate_ops.cc.

    In a `tf.function`, repeated evaluations of a variable are merged unless something may have changed it in between.
    """

    def evaluate(step, attributes):
        if tf.executing_eagerly():
            return op(step, **attributes)
        return evaluated_once(lambda: op(step, **attributes), step, (op, *attributes.items()))

    return evaluate


warmup_decay = _at_a_step(load_ops().lrops_warmup_decay)
warmup_inverse_sqrt = _at_a_step(load_ops().lrops_warmup_inverse_sqrt)
warmup_cosine_restarts = _at_a_step(load_ops().lrops_warmup_cosine_restarts)


def scaled(rate, peak, dtype):
    """`rate`, of a curve of peak 1 in float64, times the `peak` that a variable holds, rounded to `dtype`.

    The product is rounded to float64 first, and 16-bit dtypes are reached by way of float32, on every path alike. In a
    `tf.function`, repeated products are merged as evaluations are.
    """
    variable = unwrap_variable(peak)
    return _merged(lambda: product(rate, variable, dtype), variable, (rate.ref(), dtype))


def product(ratio, value, dtype):
    """A ratio in float64 times a floating value, rounded to `dtype` as `scaled` says."""
    exact = ratio * tf.cast(value, tf.float64)
    return tf.cast(exact if dtype in ("float32", "float64") else tf.cast(exact, tf.float32), dtype)


def merged_if_pure(evaluate, step, key):
    """`evaluate()`, which may do anything; in a `tf.function`, repeated evaluations are merged if they are pure.

    Args:
        evaluate: Returns the rate at `step`.
        step: What `as_step` gives.
        key: As of `evaluated_once`.
    """
    return _merged(evaluate, step, key, only_if_pure=True)


def _merged(evaluate, variable, key, **how):
    # A gradient tape must record each evaluation: what was made before it began has no gradient there. No function of
    # TensorFlow's API tells that one records; the generated wrappers ask their own module.
    if tf.executing_eagerly() or load_ops()._execute.must_record_gradient():
        return evaluate()
    return evaluated_once(evaluate, variable, key, **how)


def scaled_on_host(rate, peak, dtype):
    """`scaled`, of a NumPy array."""
    product = np.asarray(rate * value_on_host(peak))
    return (product if dtype in ("float32", "float64") else product.astype(np.float32)).astype(dtype)


def value_on_host(peak):
    """The number that `peak` is, or that the variable holds, as a float. Waits for the variable's device."""
    if isinstance(peak, float):
        return peak
    with tf.init_scope():  # also while a function is traced
        if not tf.executing_eagerly():
            raise RuntimeError(
                "the number of a variable cannot be read without eager execution, as in a graph for a session: make "
                f"the schedule with a number as initial_learning_rate. Received: initial_learning_rate={peak!r}"
            )
        return float(peak.numpy())
