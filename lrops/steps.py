"""`total_steps`: how many optimizer steps Keras' `fit` will run on some data. It reads no element of the data."""

import collections.abc
import math
import numbers
import os
import sys
import warnings
from types import ModuleType
from typing import Any

import tensorflow as tf

from lrops._arguments import as_count
from lrops._keras import in_each_keras

_KERAS_BATCH_SIZE = 32  # what `fit` takes for arrays where it is given no batch_size


def total_steps(
    data: Any,
    epochs: int = 1,
    *,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    validation_split: float = 0.0,
    keras: ModuleType | None = None,
) -> int:
    """The number of steps that `model.fit(data, epochs=epochs, ...)` will run.

    It is what `optimizer.iterations` ends at from 0, and so the `total_steps` of a schedule for that run. The last,
    partial batch counts as a step, as in `fit`. With `gradient_accumulation_steps` Keras gives a schedule the number of
    micro-batches, which is what is counted here. The number of replicas changes nothing.

    >>> import lrops
    >>> lrops.total_steps(1000, epochs=3, batch_size=32)  # 31 full batches and one of 8 rows an epoch
    96
    >>> import tensorflow as tf
    >>> lrops.total_steps(tf.data.Dataset.range(1000).batch(32), epochs=3)
    96
    >>> lrops.total_steps(tf.data.Dataset.range(1000).batch(32).repeat(), epochs=3, steps_per_epoch=10)
    30

    Args:
        data: What `fit` gets as `x`: a `tf.data.Dataset`, batched, or a `tf.distribute.DistributedDataset`; a
            `keras.utils.PyDataset` (tf_keras: `Sequence`); a Grain dataset; an array, a tensor or a structure of them,
            of equal first dimensions; or the number of rows of such arrays. A generator, a Grain dataset, or a dataset
            of unknown or infinite length, needs `steps_per_epoch`, and is taken to hold enough for all epochs.
        epochs: Passes over the data, at least 1. On a resumed run, count the epochs from the first run on.
        batch_size: Rows a step, for arrays and a number of rows only. Without it, 32, as in `fit`; where there is a
            `steps_per_epoch`, rows / steps_per_epoch, rounded up, as in `fit` too.
        steps_per_epoch: The argument of `fit`, a multiple of `steps_per_execution`. In Keras 3 an epoch then goes on
            where the one before stopped, and ends early where the data does. tf_keras ends training there, which is
            refused here.
        validation_split: The argument of `fit`: the part of the rows, in [0, 1), that is held out. For arrays and a
            number of rows only.
        keras: The module whose `fit` will run, `keras` or `tf_keras`, which differ in `steps_per_epoch` alone. Without
            it, tf_keras for its `Sequence`, where only it is imported and where TF_USE_LEGACY_KERAS is set, and Keras 3
            elsewhere; warns if both are imported and would run different numbers of steps.

    Returns:
        The number of steps, an int.

    Raises:
        TypeError: `data` is none of the above, or a count is not an integer.
        ValueError: the length is unknown or infinite and there is no `steps_per_epoch`; the data is empty, or ends
            before training does; arrays differ in rows; an argument is out of its range, or has no meaning for this
            data.
    """
    epochs = as_count("epochs", epochs)
    if steps_per_epoch is not None:
        steps_per_epoch = as_count("steps_per_epoch", steps_per_epoch)
    rows = _rows(data)
    if rows is not None:
        rows = _training_rows(rows, validation_split)
        if batch_size is not None:
            batch_size = as_count("batch_size", batch_size)
        elif steps_per_epoch is not None:
            batch_size = math.ceil(rows / steps_per_epoch)
        else:
            batch_size = _KERAS_BATCH_SIZE
        batches = -(-rows // batch_size)
    else:
        for name, value, given in (
            ("batch_size", batch_size, batch_size is not None),
            ("validation_split", validation_split, validation_split != 0),
        ):
            if given:
                raise ValueError(
                    f"{name} is for arrays: a {type(data).__name__} counts its batches itself, and fit does not split "
                    f"it. Leave {name} out. Received: {name}={value!r}"
                )
        batches = _batches(data)
    if batches == 0:
        raise ValueError(f"data holds no batch, so fit would run no step. Received: an empty {type(data).__name__}")
    if steps_per_epoch is None:
        if batches is None or _is_grain(data):  # of which Keras does not ask the length
            raise ValueError(
                "data is of unknown or infinite length. Let it repeat, as dataset.repeat() does, and pass "
                "steps_per_epoch, here and to fit; or, if you know how many batches a tf.data.Dataset holds, use "
                "dataset.apply(tf.data.experimental.assert_cardinality(batches)). "
                f"Received: a {type(data).__name__} and steps_per_epoch=None"
            )
        return epochs * batches
    steps = epochs * steps_per_epoch
    if batches is None or steps <= batches:
        return steps
    # Keras 3 goes on through the data from epoch to epoch, ends the epoch where it runs out, and starts over.
    passes, rest = divmod(epochs, -(-batches // steps_per_epoch))
    in_keras_3 = None if _is_grain(data) else passes * batches + rest * steps_per_epoch
    in_tf_keras = steps if _starts_over(data, rows, batches, steps_per_epoch) else None
    runs_tf_keras = _runs_tf_keras(data, keras)
    if runs_tf_keras is None and in_keras_3 != in_tf_keras:
        warnings.warn(
            f"with steps_per_epoch={steps_per_epoch} Keras 3 runs {in_keras_3} steps on this data, and tf_keras "
            f"{in_tf_keras or 'ends training where the data ends'}: the number returned is that of Keras 3. Name "
            "yours, total_steps(..., keras=keras) or keras=tf_keras.",
            UserWarning,
            stacklevel=2,
        )
    found = in_tf_keras if runs_tf_keras else in_keras_3
    if found is None:
        raise ValueError(
            "data ends before training does: let it repeat, as dataset.repeat() does, or leave steps_per_epoch out, "
            f"here and in fit. Received: {batches} batches, epochs={epochs}, steps_per_epoch={steps_per_epoch}"
        )
    return found


def _starts_over(data, rows, batches, steps_per_epoch):
    """Whether tf_keras has enough of data that does not last for all epochs in one pass."""
    if rows is not None or isinstance(data, _py_datasets()):  # arrays are repeated, a Sequence begins with each epoch
        return steps_per_epoch <= batches
    return isinstance(data, tf.data.Dataset) and steps_per_epoch == batches


def _runs_tf_keras(data, keras):
    """Whether the `fit` of tf_keras will run; None if it may be that of either Keras."""
    if keras is not None:
        if getattr(keras, "__name__", None) is None:
            raise TypeError(f"keras must be the module keras or tf_keras. Received: keras={keras!r}")
        return keras.__name__.replace("keras._tf_keras", "").startswith("tf_keras")
    if isinstance(data, _py_datasets("tf_keras")):
        return True
    if isinstance(data, _py_datasets("keras")) or not sys.modules.get("tf_keras"):
        return False
    if not sys.modules.get("keras") or os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        return True
    return None


def _py_datasets(*names):
    """`PyDataset`, which both Keras also call `Sequence`, of each Keras that is imported, or of those named."""
    return tuple(base for name, base in in_each_keras("utils.Sequence") if name in names or not names)


def _is_grain(data):
    return any(base.__module__.split(".")[0] == "grain" for base in type(data).__mro__)


def _rows(data):
    """The rows of arrays, or None where `data` is made of batches."""
    if isinstance(data, numbers.Integral) and not isinstance(data, bool):
        return as_count("data, as a number of rows,", data)
    batched = (tf.data.Dataset, tf.distribute.DistributedDataset, collections.abc.Iterator, *_py_datasets())
    if isinstance(data, batched) or _is_grain(data):
        return None
    shapes = [getattr(array, "shape", None) for array in tf.nest.flatten(data)]
    if not shapes or any(shape is None or len(shape) == 0 for shape in shapes):
        raise TypeError(
            "data must be a tf.data.Dataset, a DistributedDataset, a PyDataset, a Grain dataset, arrays or a number of "
            f"rows; for anything else, pass the number of rows. Received: {type(data).__name__}"
        )
    rows = {shape[0] for shape in shapes}
    if len(rows) > 1:
        raise ValueError(f"data must be of arrays with equal numbers of rows. Received: {sorted(rows)} rows")
    return int(rows.pop())


def _training_rows(rows, validation_split):
    if not isinstance(validation_split, numbers.Real) or isinstance(validation_split, bool):
        raise TypeError(f"validation_split must be a number. Received: validation_split={validation_split!r}")
    if not 0 <= validation_split < 1:
        raise ValueError(f"validation_split must be in [0, 1). Received: validation_split={validation_split}")
    if not validation_split:
        return rows
    training = math.floor(rows * (1.0 - validation_split))
    if training in (0, rows):
        raise ValueError(
            "validation_split must leave rows on both sides, or fit refuses it. Received: "
            f"validation_split={validation_split} of {rows} rows"
        )
    return training


def _batches(data):
    """The number of batches, or None where it is unknown or infinite."""
    if isinstance(data, (tf.data.Dataset, tf.distribute.DistributedDataset)):
        cardinality = data.cardinality
        batches = int(cardinality() if callable(cardinality) else cardinality)  # a property of DistributedDataset
        return batches if batches >= 0 else None
    if isinstance(data, collections.abc.Iterator):
        return None
    if _is_grain(data):
        return len(data) if hasattr(data, "__len__") else None
    return data.num_batches if hasattr(data, "num_batches") else len(data)
