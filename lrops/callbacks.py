"""`LearningRateLogger`, a Keras callback that logs the learning rates that were applied."""

import os
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from lrops._applied import Series, series_of
from lrops._arguments import as_count, as_path
from lrops._keras import add_keras_bases, add_missing_bases
from lrops._log_files import LogFiles
from lrops._schedule import notes_itself
from lrops._tracing import compiled_graphs, is_written_in, schedules_in
from lrops.schedules import LinearWarmup

if TYPE_CHECKING:
    from keras.callbacks import Callback as _Callback
else:

    class _Callback:
        """The first base of `LearningRateLogger`. `add_keras_bases` adds those of Keras."""


class LearningRateLogger(_Callback):
    """Logs the learning rate that each update was made with. (Keras itself shows the rate of the next update.)

    The rate is in `logs` as "learning_rate": the progress bar shows it for each batch, and `History` keeps one for each
    epoch. It can also be written to a CSV file and for TensorBoard. A callback that reads `logs`, such as `CSVLogger`,
    must come after this one in the list of callbacks. A callback that changes the rate when a batch begins must come
    before it.

    **Which step.** Steps are the optimizer's count of updates, in a resumed run, with your own `train_step` and under a
    distribution strategy too. In `logs`, a batch has the rate at the count before the batch (with
    `steps_per_execution`, the rate of the last update made), and an epoch has the rate of its last update. The files
    have a line for each update, however many a batch makes. With `gradient_accumulation_steps`, Keras passes the number
    of micro-batches to a schedule, so the step here is that number.

    **Several optimizers.** An optimizer made of others, such as `keras.optimizers.MultiOptimizer`, has one series for
    each. They are named as in Keras' TensorBoard callback: "learning_rate_adam" and so on. Numbers that Keras adds to
    names are replaced, so that a second run has the same columns. In the CSV file, a cell is empty if that optimizer
    did not make the update of this number in that batch.

    **What it costs.** Less than 0.1 ms a batch, and less than 0.15 ms with both files. Reading the count waits at most
    for the step before the one that was just started, so a GPU always has a step to work on. (With
    `steps_per_execution`, it waits for the execution.) A `LinearWarmup`, a schedule that is not of lrops, and a
    subclass with its own `__call__` are evaluated eagerly, in about 0.3 ms more.

    **Files.** If a file cannot be written, such as on a full disk, training goes on without it, and one warning says
    so. Each worker of a multi-worker run needs its own files.

    In your own training loop, call the hooks of a `keras.callbacks.CallbackList` as `fit` does.

    Args:
        every: The CSV file and TensorBoard get the steps that are a multiple of this number, at least 1. `logs` always
            gets every batch.
        log_dir: A folder for TensorBoard, which shows "learning_rate" over the optimizer's steps.
        csv: A file for lines of step and rate, flushed at the end of each epoch and of training. A missing folder is
            made. If the file exists, a run that begins at step n keeps the lines before step n and writes the others
            again. After a crash, no line is missing or doubled. A run that begins at step 0 replaces the file.
        verify: Whether to raise a RuntimeError if the schedule has no effect. See below.
        optimizer: The optimizer to log, or a list of optimizers, if it is not the model's. For a GAN, pass the two that
            its `train_step` uses.

    Raises:
        TypeError: `every` is not an integer, or `log_dir` or `csv` is not a path. When training begins: Keras does not
            run on TensorFlow.
        ValueError: `every` is below 1, or `log_dir` or `csv` is in a file system that TensorFlow does not know. When
            training begins: `csv` is a file with other content, or the model has no optimizer, or the optimizer has no
            learning rate.
        RuntimeError: When training begins: TensorFlow does not execute eagerly. With `verify`, when an epoch ends: the
            optimizer counted no update in it, although the schedule's rate changes over that many steps. (A hold, the
            floor or `alpha=1` raises nothing. While a `LossScaleOptimizer` lowers its scale, 30 batches may pass
            first.) With `verify`, when an epoch begins: the optimizer's update is compiled into the model's training
            function with another rate than the optimizer's schedule. (For a schedule that is not of lrops, this is
            found only if a logger saw the training function before.)

    Examples:
        >>> import keras, lrops, numpy as np
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> schedule = lrops.WarmupCosineDecay(0.1, warmup_steps=4, total_steps=8)
        >>> model.compile(keras.optimizers.SGD(schedule), "mse")
        >>> rows = np.ones((4, 2), "float32")
        >>> logger = lrops.LearningRateLogger()
        >>> history = model.fit(rows, rows[:, :1], batch_size=1, epochs=2, verbose=0, callbacks=[logger])
        >>> [round(rate, 4) for rate in history.history["learning_rate"]]  # at steps 3 and 7
        [0.075, 0.0147]
    """

    # Both Keras read these attributes, whichever base comes first. The last one tells tf_keras not to fetch a batch's
    # logs from the device for this callback.
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
        optimizer: Any = None,
    ) -> None:
        add_missing_bases()
        self.every = as_count("every", every)
        self.log_dir = as_path("log_dir", log_dir)
        self.csv = as_path("csv", csv)
        self.verify = verify
        self.optimizer = optimizer
        self._series: list[Series] = []
        self._files: LogFiles | None = None
        self._in_epoch = False

    def set_model(self, model: Any) -> None:
        """Called by Keras."""
        self.model = model

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        if not tf.executing_eagerly():
            raise RuntimeError(
                "LearningRateLogger needs eager execution, to read the optimizer's step between batches: remove "
                "tf.compat.v1.disable_eager_execution() or disable_v2_behavior(), or train without the logger."
            )
        self.on_train_end()  # if the last run was interrupted
        self._idle = 0  # batches since the optimizer last counted an update
        self._series = series_of(self._optimizer(), self.model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        if not self._series:  # a training loop may leave out `on_train_begin`
            self.on_train_begin()
        for series in self._series:
            series.start_epoch()
        train_function = getattr(self.model, "train_function", None)
        if self.verify and train_function is not None and not getattr(self.model, "run_eagerly", False):
            _check_compiled(train_function, self._series)
        self._batches = 0
        self._begun: Any = None  # the first batch of the execution that runs
        self._in_epoch = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras: at the end of the data once more than `on_train_batch_end`."""
        if not self._in_epoch:  # a training loop without epochs
            self.on_epoch_begin(0)
        self._begun = batch
        for series in self._series:
            series.start_batch()
        if self._files is None:  # not earlier: by now, every other callback has restored its state
            firsts, keys = zip(*((series.start.count, series.key) for series in self._series), strict=True)
            self._files = LogFiles(self.csv, self.log_dir, firsts, keys)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._batches += batch - self._begun + 1
        self._write([series.updates() for series in self._series])
        if logs is not None:
            logs.update({series.key: series.rate_of_batch(batch > self._begun) for series in self._series})
        steps = (self.params or {}).get("steps")
        for series in self._series:
            series.end_batch(last=steps is None or batch >= steps - 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._write([series.end_epoch() for series in self._series])
        if logs is not None and self._begun is not None:
            logs.update({series.key: series.rate_of_epoch() for series in self._series})
        if self._files:
            self._files.flush()
        self._idle = 0 if any(series.moved for series in self._series) else self._idle + self._batches
        if self.verify and self._idle:
            for series in self._series:
                series.check_idle(self._idle)
        self._in_epoch = False
        if getattr(self.model, "train_function", None) is not None:
            _rates_when_compiled(self.model.train_function, compiled_graphs(self.model.train_function), self._series)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        if self._files:
            self._write([series.end() for series in self._series])
            self._files.close()
        self._files = None
        self._in_epoch = False

    def _optimizer(self):
        optimizer = getattr(self.model, "optimizer", None) if self.optimizer is None else self.optimizer
        if optimizer is None:
            raise ValueError(
                "LearningRateLogger needs a model with an optimizer: call model.compile(optimizer, ...), or pass the "
                "optimizer, LearningRateLogger(optimizer=...)."
            )
        return optimizer

    def _write(self, updates):
        """Writes the updates of each series, which are pairs of a step and the start of its batch."""
        rows: dict[int, dict[str, Any]] = {}
        for series, pairs in zip(self._series, updates, strict=True):
            for step, start in pairs if self._files else ():
                if step % self.every == 0:
                    rows.setdefault(step, {})[series.key] = start.rate(step)
        for step in sorted(rows):
            self._files.write(step, rows[step])


def _rates_when_compiled(train_function, graphs, all_series):
    """The rate that each optimizer had when a logger first saw this function with as many graphs as it has now."""
    # Kept on the function: a schedule may refer to the model, and a global table would keep both alive.
    seen = vars(train_function).setdefault("_lrops_rates", {})
    return [
        seen.setdefault((id(series.optimizer), len(graphs)), (series.source, series.optimizer))[0]
        for series in all_series
    ]


def _check_compiled(train_function, all_series):
    """Raises if the update of an optimizer is compiled into `train_function` with another rate than its schedule."""
    graphs = compiled_graphs(train_function)
    rates = _rates_when_compiled(train_function, graphs, all_series)
    for series, before in zip(all_series, rates, strict=True):
        source = series.source
        if not series.is_schedule or not is_written_in(graphs, series.counter):
            continue
        if notes_itself(source) and not any(_alike(one, source) for one in schedules_in(graphs)):
            before = "another rate" if before is source else repr(before)
        elif not hasattr(before, "assign") and not hasattr(before, "get_config") or _alike(before, source):
            continue
        raise RuntimeError(
            "the learning rate of the optimizer was replaced after its model was first trained, but the old one is "
            "compiled into the training function and stays in use: call model.compile(...) again, or "
            f"model.make_train_function(force=True). Received: {source!r} after {before}. To train anyway, use "
            "LearningRateLogger(verify=False)."
        )


def _peak_variable(schedule):
    while isinstance(schedule, LinearWarmup):
        schedule = schedule.schedule
    peak = getattr(schedule, "initial_learning_rate", None)
    return peak if hasattr(peak, "assign") else None


def _alike(one, other):
    """Whether two schedules are known to be the same."""
    try:
        return one is other or (
            type(one) is type(other)
            and bool(one.get_config() == other.get_config())
            # Configs may be equal because two different variables hold the same number now.
            and _peak_variable(one) is _peak_variable(other)
        )
    except (AttributeError, NotImplementedError, TypeError, ValueError):  # no config, or == cannot compare it
        return False


add_keras_bases(LearningRateLogger, "callbacks.Callback")
