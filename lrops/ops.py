"""The op as a Python function, and the rule of what a step may be.

Called by lrops/schedules.py. It must not know Keras' schedules; the loader below it knows where the op comes from.
"""

import numpy as np
import tensorflow as tf

from lrops._loader import load_ops

# The generated wrapper. `step` must be int64; the attributes are those of cc/ops/warmup_cosine_ops.cc.
warmup_cosine_decay = load_ops().lrops_warmup_cosine_decay

as_dtype = tf.as_dtype
_INT64 = tf.int64

tf.no_gradient("Lrops>WarmupCosineDecay")  # a step is an integer


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
    if dtype is None:  # a Python number or a list of them
        array = np.asarray(step)
        if array.dtype == object and all(type(value) is int for value in array.flat):
            raise ValueError(f"step must fit in int64. Received: step={step}")
        step, dtype = array, array.dtype
    name = dtype if isinstance(dtype, str) else dtype.name
    if name == "int64":
        # Not every keras.Variable is a tf.Tensor to the op's fast path; what is under it is.
        return step.value if isinstance(dtype, str) else step
    if name not in ("int8", "int16", "int32", "uint8", "uint16", "uint32"):
        raise TypeError(
            "step must be of an integer dtype that int64 holds, as optimizer.iterations is: cast it "
            f"yourself, tf.cast(step, tf.int64), if that is what you mean. Received: step of dtype {name}"
        )
    return tf.cast(step, tf.int64)
