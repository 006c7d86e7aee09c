"""`total_steps`: how many optimizer steps Keras' `fit` will run on some data. It reads no element of the data."""

import collections.abc
import math
import numbers
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
) -> int:
    """The number of steps that `model.fit(data, epochs=epochs, ...)` of Keras 3 will run.

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
            `keras.utils.PyDataset` (tf_keras: `Sequence`); an array, a tensor or a structure of them, of equal first
            dimensions; or the number of rows of such arrays. A generator, or a dataset of unknown or infinite length,
            needs `steps_per_epoch`, and is taken to hold enough.
        epochs: Passes over the data, at least 1. On a resumed run, count the epochs from the first run on.
        batch_size: Rows a step, for arrays and a number of rows only. Without it, 32, as in `fit`; where there is a
            `steps_per_epoch`, rows / steps_per_epoch, rounded up, as in `fit` too.
        steps_per_epoch: The argument of `fit`. An epoch then goes on where the one before stopped, and ends early where
            the data does, as in Keras 3.
        validation_split: The argument of `fit`: the part of the rows, in [0, 1), that is held out. For arrays and a
            number of rows only.

    Returns:
        The number of steps, an int.

    Raises:
        TypeError: `data` is none of the above, or a count is not an integer.
        ValueError: the length is unknown or infinite and there is no `steps_per_epoch`; the data is empty; arrays
            differ in rows; an argument is out of its range, or has no meaning for this data.
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
        if batches is None:
            raise ValueError(
                f"data is of unknown or infinite length. Pass steps_per_epoch, here and to fit, or, where you know how "
                "many batches a dataset holds, use dataset.apply(tf.data.experimental.assert_cardinality(batches)). "
                f"Received: a {type(data).__name__} and steps_per_epoch=None"
            )
        return epochs * batches
    if batches is None:
        return epochs * steps_per_epoch
    # Keras 3 goes on through the data from epoch to epoch, ends the epoch where it runs out, and starts over.
    passes, rest = divmod(epochs, -(-batches // steps_per_epoch))
    return passes * batches + rest * steps_per_epoch


def _rows(data):
    """The rows of arrays, or None where `data` is made of batches."""
    if isinstance(data, numbers.Integral) and not isinstance(data, bool):
        return as_count("data, as a number of rows,", data)
    py_datasets = (base for _, base in in_each_keras("utils.Sequence"))  # as Keras 3 still calls PyDataset
    if isinstance(data, (tf.data.Dataset, tf.distribute.DistributedDataset, collections.abc.Iterator, *py_datasets)):
        return None
    shapes = [getattr(array, "shape", None) for array in tf.nest.flatten(data)]
    if not shapes or any(shape is None or len(shape) == 0 for shape in shapes):
        raise TypeError(
            "data must be a tf.data.Dataset, a DistributedDataset, a PyDataset, arrays or a number of rows; for "
            f"anything else, pass the number of rows. Received: {type(data).__name__}"
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
    return data.num_batches if hasattr(data, "num_batches") else len(data)
