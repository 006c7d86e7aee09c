"""`total_steps`, the number of optimizer steps that Keras' `fit` will run. It reads no element of the data.

Without `steps_per_epoch`, it is the number of batches times `epochs`. With it, it is `steps_per_epoch * epochs` if the
data lasts that long. If not, the two Keras differ:

* Keras 3 continues through the data from epoch to epoch. If the data ends within an epoch, the epoch ends early, and
  the next one starts over.
* tf_keras starts over if an epoch fits in the arrays or the `Sequence`, or if it is a whole pass over a dataset.
  Otherwise it stops training.
"""

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

_KERAS_BATCH_SIZE = 32  # the default of `fit` for arrays


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

    Pass it as the `total_steps` of a schedule. Without gradient accumulation, it is the number that
    `optimizer.iterations` reaches, from 0. The last, partial batch counts as a step, as in `fit`. With
    `gradient_accumulation_steps`, Keras counts micro-batches for a schedule, and so does this function. The number of
    replicas makes no difference. `steps_per_execution` makes none either, except in Keras 3.0, which may run a step
    without data at the end of an epoch: in Keras 3.0.5, 8 batches with `steps_per_execution=3` make 9 updates. This
    function does not count such steps.

    Args:
        data: The data that `fit` gets as `x`. It can be a batched `tf.data.Dataset`, a
            `tf.distribute.DistributedDataset`, a `keras.utils.PyDataset` (in tf_keras: `Sequence`) such as
            `ImageDataGenerator().flow(...)`, a PyTorch `DataLoader`, a Grain dataset, a generator, an array, a tensor,
            or a structure of arrays with equal first dimensions. For arrays, the number of rows is enough. A generator,
            a Grain dataset, and a dataset of unknown or infinite length need `steps_per_epoch`; they are taken to hold
            enough batches for all epochs.
        epochs: How many epochs are trained, at least 1. For a resumed run, count from the first run on.
        batch_size: Rows in a batch, for arrays and a number of rows only. The default is that of `fit`: 32, or with
            `steps_per_epoch`, rows / steps_per_epoch, rounded up.
        steps_per_epoch: The argument of `fit`. It should be a multiple of `steps_per_execution`. If the data ends
            before an epoch does, Keras 3 ends that epoch early. tf_keras stops training, so this function raises.
        validation_split: The argument of `fit`, in [0, 1): the part of the rows that is held out. For arrays and a
            number of rows only.
        keras: The module whose `fit` will run, `keras` or `tf_keras`. They differ only with `steps_per_epoch`. The
            default is tf_keras for its `Sequence`, if only tf_keras is imported, or if TF_USE_LEGACY_KERAS is set;
            otherwise Keras 3. A warning is shown if both are imported and would run different numbers of steps.

    Returns:
        The number of steps, an int.

    Raises:
        TypeError: `data` is none of the above, or a count is not an integer.
        ValueError: The length is unknown or infinite and `steps_per_epoch` is missing; the data is empty or ends before
            training does; arrays have different numbers of rows; an argument is out of its range or does not apply to
            this data.

    Examples:
        >>> import lrops
        >>> lrops.total_steps(1000, epochs=3, batch_size=32)  # 31 full batches and one of 8 rows an epoch
        96
        >>> import tensorflow as tf
        >>> lrops.total_steps(tf.data.Dataset.range(1000).batch(32), epochs=3)
        96
        >>> lrops.total_steps(tf.data.Dataset.range(1000).batch(32).repeat(), epochs=3, steps_per_epoch=10)
        30
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
        for name, value in {"batch_size": batch_size, "validation_split": validation_split or None}.items():
            if value is not None:
                raise ValueError(
                    f"{name} is for arrays: fit takes the batches of a {type(data).__name__} as they are. Leave {name} "
                    f"out. Received: {name}={value!r}"
                )
        batches = _batches(data)
    if batches == 0:
        raise ValueError(f"data holds no batch, so fit would run no step. Received: an empty {type(data).__name__}")
    if steps_per_epoch is None:
        if batches is None or _is_grain(data):  # Keras does not ask a Grain dataset for its length
            raise ValueError(
                "data has an unknown or infinite length. Make it repeat, for example with dataset.repeat(), and pass "
                "steps_per_epoch here and to fit. Or, if you know how many batches a tf.data.Dataset holds, use "
                "dataset.apply(tf.data.experimental.assert_cardinality(batches)). "
                f"Received: a {type(data).__name__} and steps_per_epoch=None"
            )
        return epochs * batches
    steps = epochs * steps_per_epoch
    if batches is None or steps <= batches:
        return steps
    passes, rest = divmod(epochs, -(-batches // steps_per_epoch))
    in_keras_3 = None if _is_grain(data) else passes * batches + rest * steps_per_epoch
    in_tf_keras = steps if _starts_over(data, rows, batches, steps_per_epoch) else None
    runs_tf_keras = _runs_tf_keras(data, keras)
    if runs_tf_keras is None and in_keras_3 != in_tf_keras:
        warnings.warn(
            f"with steps_per_epoch={steps_per_epoch} Keras 3 runs {in_keras_3} steps on this data, and tf_keras "
            f"{in_tf_keras or 'ends training where the data ends'}. The number for Keras 3 was returned. Say which "
            "Keras runs: total_steps(..., keras=keras) or keras=tf_keras.",
            UserWarning,
            stacklevel=2,
        )
    found = in_tf_keras if runs_tf_keras else in_keras_3
    if found is None:
        raise ValueError(
            "data ends before training does: make it repeat, such as with dataset.repeat(), or leave steps_per_epoch "
            f"out, here and in fit. Received: {batches} batches, epochs={epochs}, steps_per_epoch={steps_per_epoch}"
        )
    return found


def _starts_over(data, rows, batches, steps_per_epoch):
    """Whether tf_keras starts over when the data ends, so that training goes on."""
    if rows is not None or isinstance(data, _py_datasets()):
        return steps_per_epoch <= batches
    return isinstance(data, tf.data.Dataset) and steps_per_epoch == batches


def _runs_tf_keras(data, keras):
    """Whether the `fit` of tf_keras will run; None if it is unknown which Keras runs."""
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
    """The classes `PyDataset`, also called `Sequence`, of all imported Keras, or of those in `names`."""
    return tuple(base for name, base in in_each_keras("utils.Sequence") if name in names or not names)


def _is_grain(data):
    return any(base.__module__.split(".")[0] == "grain" for base in type(data).__mro__)


def _is_data_loader(data):
    """Whether it is a `DataLoader` of PyTorch, which Keras 3 takes and asks for its length."""
    names = ((base.__name__, base.__module__) for base in type(data).__mro__)
    return any(name == "DataLoader" and module.startswith("torch.utils.data") for name, module in names)


def _rows(data):
    """The number of rows of arrays; None if `data` consists of batches."""
    if isinstance(data, numbers.Integral) and not isinstance(data, bool):
        return as_count("data", data)
    batched = (tf.data.Dataset, tf.distribute.DistributedDataset, collections.abc.Iterator, *_py_datasets())
    if isinstance(data, batched) or _is_grain(data) or _is_data_loader(data):
        return None
    shapes = [getattr(array, "shape", None) for array in tf.nest.flatten(data)]
    if not shapes or any(shape is None or len(shape) == 0 for shape in shapes):
        raise TypeError(
            "data must be a tf.data.Dataset, a DistributedDataset, a PyDataset, a Grain dataset, a generator, arrays "
            f"or a number of rows. For anything else, pass the number of rows. Received: {type(data).__name__}"
        )
    rows = {shape[0] for shape in shapes}
    if len(rows) > 1:
        raise ValueError(f"data must be arrays with equal numbers of rows. Received: {sorted(rows)} rows")
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
            "validation_split must leave rows for training and for validation, or fit raises. Received: "
            f"validation_split={validation_split} of {rows} rows"
        )
    return training


def _batches(data):
    """The number of batches; None if it is unknown or infinite."""
    if isinstance(data, (tf.data.Dataset, tf.distribute.DistributedDataset)):
        cardinality = data.cardinality
        batches = int(cardinality() if callable(cardinality) else cardinality)  # DistributedDataset has a property
        return batches if batches >= 0 else None
    if isinstance(data, _py_datasets()):  # it may have a `__next__` too, like ImageDataGenerator().flow(...)
        return data.num_batches if hasattr(data, "num_batches") else len(data)
    sized = data.dataset if _is_data_loader(data) else data if _is_grain(data) else None  # else a generator
    return len(data) if hasattr(sized, "__len__") else None
