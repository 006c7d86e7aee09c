"""`LearningRateLogger`, the Keras callback that logs the rate each batch was trained with."""

import contextlib
import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from lrops._arguments import as_count, as_path
from lrops._keras import add_keras_bases, in_each_keras
from lrops.schedules import Schedule

_KEY = "learning_rate"
# The rate that each training function was traced with, as far as a logger has seen it.
_TRACED: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


if TYPE_CHECKING:
    from keras.callbacks import Callback as _Callback
else:

    class _Callback:
        """What `LearningRateLogger` derives from before any Keras: see `add_keras_bases`."""


class LearningRateLogger(_Callback):
    """Logs the learning rate that each batch was trained with; Keras itself shows that of the next step.

    The rate goes into `logs` as "learning_rate": the progress bar shows it for each batch, and `History` holds that of
    each epoch's last batch. What reads `logs` too, as `CSVLogger`, must stand after it in the list of callbacks.

    >>> import keras, lrops, numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> schedule = lrops.WarmupCosineDecay(0.1, warmup_steps=4, total_steps=8)
    >>> model.compile(keras.optimizers.SGD(schedule), "mse")
    >>> rows = np.ones((4, 2), "float32")
    >>> logger = lrops.LearningRateLogger()
    >>> history = model.fit(rows, rows[:, :1], batch_size=1, epochs=2, verbose=0, callbacks=[logger])
    >>> [round(rate, 4) for rate in history.history["learning_rate"]]  # at steps 3 and 7
    [0.075, 0.0147]

    The rate is that at the step the schedule was given: the optimizer's count of updates, on a resumed run as on a new
    one, under `steps_per_execution` and under a distribution strategy. With `gradient_accumulation_steps` Keras gives a
    schedule the number of micro-batches, and so that is the step here.

    No batch waits for a device on its account where the optimizer has a schedule. It counts the steps itself, compares
    with the optimizer when an epoch ends, and warns, once, where that counted otherwise: in that epoch what it logged
    is the rate at the steps it counted. A schedule of lrops is evaluated by `on_host`, another schedule eagerly on
    the CPU, which takes some 0.3 ms. A constant rate is read from the optimizer before the first batch of an epoch and
    before each batch to be logged, which does wait.

    Args:
        every: The CSV file and TensorBoard get the steps that this divides. `logs` get every batch.
        log_dir: A folder for TensorBoard, where "learning_rate" is drawn over the optimizer's steps.
        csv: A file for lines of step and rate, flushed when an epoch and when training ends. A run that begins at step
            n keeps the lines before n in a file that is there already, and drops those from n on, which it writes
            again: after a crash none is doubled and none is missing. A run that begins at 0 so begins the file anew.
        verify: Raise where a schedule was given and cannot have any effect. See below.

    Where the disk is full, or a file cannot be written for any other reason, training goes on without that file, and
    one warning says so. Workers of a multi-worker run need a file each.

    Raises:
        TypeError: `every` is not an integer, or `log_dir` or `csv` no path.
        ValueError: `every` is below 1; or, when training begins, `csv` is a file of something else, or the model has no
            optimizer.
        RuntimeError: with `verify`, the rate does not move although it should, which is one of two things. (1) When an
            epoch ends, the optimizer has not counted a single update in it, and the schedule would have given another
            rate in as many steps. Where the schedule is flat over them (a hold, the floor, alpha=1), a rate that
            stands still is right, and nothing is raised. (2) When an epoch begins, the optimizer has another schedule
            than when a logger first saw the model's training function, which has that one compiled into it.
    """

    # For either Keras, whichever base comes first. tf_keras: do not fetch a batch's logs from the device for this.
    params: Any
    model: Any
    params = model = validation_data = _chief_worker_only = None
    _supports_tf_logs = True

    def __init__(
        self,
        every: int = 1,
        log_dir: str | os.PathLike[str] | None = None,
        csv: str | os.PathLike[str] | None = None,
        verify: bool = True,
    ) -> None:
        _add_keras_bases()
        self.every = as_count("every", every)
        self.log_dir = as_path("log_dir", log_dir)
        self.csv = as_path("csv", csv)
        self.verify = verify
        self._files: list[Any] | None = None
        self._lines: list[tuple[int, Any]] = []

    def set_model(self, model: Any) -> None:
        """Called by Keras."""
        self.model = model

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Called by Keras."""
        self.params = params

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is None:
            raise ValueError("LearningRateLogger needs a model with an optimizer: call model.compile(optimizer, ...).")
        self._optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under a LossScaleOptimizer
        self._close()
        self._warned = False
        self._idle = 0  # batches since the optimizer last counted an update

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._rate = _Rate(self._optimizer)
        if self.verify and not self.model.run_eagerly:
            _check_traced(self.model.train_function, self._rate.source)
        self._first = _updates(self._optimizer)
        if self._files is None:  # now that every callback that restores a checkpoint has done so
            self._files = [] if self.csv is None else [_Csv(self.csv, self._first)]
            if self.log_dir is not None:
                self._files.append(_TensorBoard(self.log_dir))
        # An execution is the batches between two calls of Keras. The latest is kept until another has ended or the
        # optimizer has said how long it was: Keras names the batch that a whole one would end with.
        self._begun, self._ended, self._lines = 0, -1, []

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras, and once more where the data ends than `on_train_batch_end`."""
        if self._ended < 0:  # the first one: not batch 0 where tf_keras resumes in the middle of an epoch
            self._first -= batch
            self._begun = batch
        step, length = self._first + batch, self._ended - self._begun + 1
        if self._ended < 0 or (step - 1) // self.every < (step + length - 1) // self.every:
            self._rate.read()
        self._next = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._write(self._lines)
        batches = (self.params or {}).get("steps")
        self._begun, self._ended = self._next, batch if batches is None else min(batch, batches - 1)
        steps = range(self._first + self._begun, self._first + self._ended + 1) if self._files else range(0)
        self._lines = [(step, self._rate(step)) for step in steps if step % self.every == 0]
        if logs is not None:
            logs[_KEY] = float(self._rate(self._first + self._ended))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        batches = self._ended + 1
        updates = _updates(self._optimizer) - self._first
        if self._begun < updates <= batches:
            batches, self._idle = updates, 0
        elif batches:
            self._miscounted(batches, updates)
        self._write((step, rate) for step, rate in self._lines if step < self._first + batches)
        self._each_file("flush")
        if batches and logs is not None:
            logs[_KEY] = float(self._rate(self._first + batches - 1))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._close()

    def _write(self, lines):
        for line in lines:
            self._each_file("write", *line)

    def _each_file(self, method, *arguments):
        for file in list(self._files):
            try:
                getattr(file, method)(*arguments)
            except (OSError, tf.errors.OpError) as error:
                self._files.remove(file)
                with contextlib.suppress(OSError, tf.errors.OpError):
                    file.close()
                warnings.warn(
                    f"LearningRateLogger stops writing {file.path}, and training goes on: {error}",
                    UserWarning,
                    stacklevel=3,
                )

    def _close(self):
        if self._files is not None:
            self._each_file("close")
        self._files = None

    def _miscounted(self, batches, updates):
        self._idle = self._idle + batches if updates == 0 else 0
        if self.verify and self._idle and self._rate.is_schedule:
            # Some of the rates that so many batches should have had.
            due = {float(self._rate(self._first + self._idle * tenths // 10)) for tenths in range(11)}
            if len(due) > 1:
                raise RuntimeError(
                    "the learning rate never changes, although the optimizer has a schedule: "
                    f"{self._idle} batches were trained, and the optimizer counted no update and stands at step "
                    f"{self._first}, where the rate is {float(self._rate(self._first))}. Let train_step call apply or "
                    "apply_gradients of model.optimizer, on at least one trainable variable. Gradients that are never "
                    "finite under a LossScaleOptimizer have the same effect. LearningRateLogger(verify=False) goes on."
                )
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"LearningRateLogger counts one update a batch, and the optimizer counted {updates} in {batches} "
                f"batches from step {self._first}: the rates of this epoch were logged for steps that were not taken. "
                "It counts on from the optimizer's step. (Said once.)",
                UserWarning,
                stacklevel=3,
            )


def _add_keras_bases():
    add_keras_bases(LearningRateLogger, "callbacks.Callback")


def _updates(optimizer):
    """The number that `optimizer` gives a schedule."""
    # With gradient accumulation `iterations` is this number divided, and what is divided has no public name.
    accumulates = getattr(optimizer, "gradient_accumulation_steps", None)
    return int((optimizer._iterations if accumulates else optimizer.iterations).numpy())


def _check_traced(train_function, source):
    """Refuses a schedule that was set after the one that `train_function` has compiled in."""
    traced = _TRACED.setdefault(train_function, source)
    if traced is not source and not _alike(traced, source):
        raise RuntimeError(
            "the learning rate of the optimizer was replaced after its model was first trained, and training goes on "
            "with the old one, which is compiled into the training function: call model.compile(...) again, or "
            f"model.make_train_function(force=True). Received: {source!r} after {traced!r}"
        )


def _alike(one, other):
    """Whether two schedules are known to be the same."""
    try:
        return type(one) is type(other) and bool(one.get_config() == other.get_config())
    except (AttributeError, NotImplementedError, TypeError, ValueError):  # no config, or one that == cannot compare
        return False


class _Rate:
    """The rate of an optimizer at a step: from its schedule, or as it was when it was last read."""

    def __init__(self, optimizer):
        self._optimizer = optimizer
        # A schedule has no public name: `learning_rate` is its rate at the optimizer's step.
        self.source = getattr(optimizer, "_learning_rate", None)
        bases = tuple(base for _, base in in_each_keras("optimizers.schedules.LearningRateSchedule"))
        self.is_schedule = isinstance(self.source, bases)

    def read(self):
        """Fetches from the device what `__call__` then takes as it is."""
        if not self.is_schedule:
            self._constant = np.asarray(_value(self._optimizer.learning_rate))

    def __call__(self, step):
        """The rate at `step`, an int, as a NumPy scalar."""
        if not self.is_schedule:
            return self._constant[()]
        if isinstance(self.source, Schedule):
            return self.source.on_host(step)[()]
        with tf.device("CPU:0"):
            return np.asarray(_value(self.source(tf.constant(step, tf.int64))))[()]


def _value(rate):
    return rate.numpy() if hasattr(rate, "numpy") else rate


class _Csv:
    """Lines of step and rate in a file."""

    HEADER = b"step,learning_rate\n"

    def __init__(self, path, first):
        self.path = path
        self._file = open(self.path, "a+b")  # noqa: SIM115  (open while training runs)
        kept = self._length_before(first)
        self._file.truncate(kept)
        if not kept:
            self._file.write(self.HEADER)

    def _length_before(self, first):
        """The bytes of the lines before step `first`; a line that a crash cut short is not one."""
        self._file.seek(0)
        header = self._file.readline()
        length = len(header)
        try:
            if header != self.HEADER:
                if self.HEADER.startswith(header):  # nothing yet, or cut short
                    return 0
                raise ValueError
            for line in self._file:
                if not line.endswith(b"\n") or int(line.split(b",")[0]) >= first:
                    break
                length += len(line)
        except ValueError:
            self._file.close()
            raise ValueError(
                "csv must be a new file, or one that LearningRateLogger wrote. Received: "
                f"csv={self.path!r}, which holds something else"
            ) from None
        return length

    def write(self, step, rate):
        self._file.write(b"%d,%s\n" % (step, str(rate).encode()))

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()


class _TensorBoard:
    """The scalar "learning_rate" in a folder of event files, which it takes no TensorBoard to write."""

    _SCALAR = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR", plugin_data={"plugin_name": "scalars"})

    def __init__(self, path):
        self.path = path
        self._writer = tf.summary.create_file_writer(self.path)

    def write(self, step, rate):
        with self._writer.as_default():
            tf.summary.write(_KEY, np.float32(rate), step, self._SCALAR)

    def flush(self):
        self._writer.flush()

    def close(self):
        self._writer.close()


_add_keras_bases()
