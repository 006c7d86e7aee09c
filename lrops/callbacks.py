"""`LearningRateLogger`, a Keras callback that logs the learning rate of each batch.

How it counts. The rate of a batch is the schedule's rate at the optimizer's step before that batch. To read that step
from a GPU would wait for the GPU, so the logger reads it once, at an epoch's first batch, and then counts one step a
batch. At the epoch's end it reads the step again and compares. If the optimizer counted otherwise, a warning says so,
and with `verify` an optimizer that counted nothing can be an error. The next epoch begins from the optimizer's count.

An execution is the batches between two calls of Keras: one batch, or `steps_per_execution` batches. For the last
execution of an epoch, Keras may name a batch beyond the end of the data. So the lines of an execution of several
batches are written when the next one has ended, or when the optimizer's step has shown its length.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from lrops._arguments import as_count, as_path, unwrap_variable
from lrops._keras import add_keras_bases, in_each_keras
from lrops.ops import value_on_host
from lrops.schedules import Curve, LinearWarmup, is_evaluated_by_lrops, is_warmup, schedules_traced_into

_KEY = "learning_rate"
# How many batches in a row may go without an update while a LossScaleOptimizer lowers its scale.
_SCALING = 30

if TYPE_CHECKING:
    from keras.callbacks import Callback as _Callback
else:

    class _Callback:
        """The first base of `LearningRateLogger`. `add_keras_bases` adds those of Keras."""


class LearningRateLogger(_Callback):
    """Logs the learning rate that each batch was trained with. (Keras itself shows the rate of the next step.)

    The rate is in `logs` as "learning_rate": the progress bar shows it for each batch, and `History` keeps the one of
    each epoch's last batch. It can also be written for TensorBoard and to a CSV file. A callback that reads `logs`,
    such as `CSVLogger`, must come after this one in the list of callbacks.

    **Which step.** The step is the optimizer's count of updates, also in a resumed run, with `steps_per_execution` and
    under a distribution strategy. With `gradient_accumulation_steps`, Keras passes the number of micro-batches to a
    schedule, so the step here is that number.

    **Several optimizers.** An optimizer made of others, such as `keras.optimizers.MultiOptimizer`, has one series for
    each. They are named as in Keras' TensorBoard callback: "learning_rate_adam" and so on.

    **What it costs.** With a schedule whose peak is a number, logging never blocks on the device. The logger counts the
    steps itself and compares its count with the optimizer's at the end of each epoch. If they differ, one warning says
    so; the rates logged in that epoch belong to the logger's count. A curve of lrops is evaluated by `on_host`. A
    `LinearWarmup`, a schedule that is not of lrops, and a subclass with its own `__call__` are evaluated eagerly on the
    CPU, in about 0.3 ms. A constant rate, or a peak in a variable, is read from its device before each batch (with
    `steps_per_execution`, before each execution). That read waits for the device.

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
        TypeError: `every` is not an integer, or `log_dir` or `csv` is not a path.
        ValueError: `every` is below 1. When training begins: `csv` is a file with other content, or the model has no
            optimizer, or the optimizer has no learning rate.
        RuntimeError: When training begins: TensorFlow does not execute eagerly.
        RuntimeError: With `verify`, when an epoch ends: the optimizer counted no update in it, although the schedule's
            rate changes over that many steps. (A hold, the floor or `alpha=1` raises nothing. While a
            `LossScaleOptimizer` lowers its scale, 30 batches may pass first.)
        RuntimeError: With `verify`, when an epoch begins: the optimizer's schedule is not the one that is compiled into
            the model's training function. (For a schedule that is not of lrops, this is found only if a logger saw the
            training function before.)

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
        _add_keras_bases()
        self.every = as_count("every", every)
        self.log_dir = as_path("log_dir", log_dir)
        self.csv = as_path("csv", csv)
        self.verify = verify
        self.optimizer = optimizer
        self._files: list[Any] | None = None
        self._lines: list[_Line] = []
        self._rates: list[_Rate] = []
        self._warned = False
        self._idle = 0  # batches since the optimizer last counted an update
        self._in_epoch = False
        self._parts: list[tuple[str, Any, Any]] = []

    def set_model(self, model: Any) -> None:
        """Called by Keras."""
        self.model = model

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Called by Keras."""
        self.params = params

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        if not tf.executing_eagerly():
            raise RuntimeError(
                "LearningRateLogger needs eager execution, to read the optimizer's step between batches: remove "
                "tf.compat.v1.disable_eager_execution() or disable_v2_behavior(), or train without the logger."
            )
        if self._files is not None:  # the last run was interrupted
            self._write_what_was_taken()
        self._close()
        self._parts = _parts(self._optimizer(), self.model)
        self._rates = [_Rate(*part) for part in self._parts]  # raises if an optimizer has no rate
        self._warned = False
        self._idle = 0
        self._in_epoch = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        # Another schedule may have been set since the last epoch.
        self._parts = self._parts or _parts(self._optimizer(), self.model)
        self._rates = [_Rate(*part) for part in self._parts]
        train_function = getattr(self.model, "train_function", None)
        if self.verify and train_function is not None and not getattr(self.model, "run_eagerly", False):
            _check_traced(train_function, self._rates)
        # Batches of the epoch: the first and the last of the execution that ended, and the first of the one that runs.
        self._begun, self._ended, self._next, self._lines = 0, -1, 0, []
        self._in_epoch = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras: at the end of the data once more often than `on_train_batch_end`."""
        if not self._in_epoch:  # a training loop without epochs
            self.on_epoch_begin(0)
        # The step is read here and not earlier: by now, every other callback has restored its state.
        if self._ended < 0:
            self._begun = batch  # above 0 if tf_keras resumes in the middle of an epoch
            for rate in self._rates:
                rate.begin(batch)
            if self._files is None:
                self._files = self._open(self._rates[0].first + batch)
        for rate in self._rates:
            rate.read(rate.first + batch)
        self._next = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._write(self._lines)
        self._begun, self._ended = self._next, batch
        self._lines = self._lines_of(range(self._begun, self._ended + 1))
        if self._begun == self._ended:  # one batch: its length is known
            self._write(self._lines)
            self._lines = []
        if self._last() == math.inf or batch >= self._last():
            for rate in self._rates:
                rate.note_count()
        self._log(logs, min(batch, self._last()))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        batches = min(self._ended, self._last()) + 1
        if self._ended >= 0:
            updates = [rate.updates() for rate in self._rates]
            # If Keras did not know where the data ends, it began one batch without data, which may have been counted.
            ghost = int(self._next > self._ended)
            taken = [min(count, self._ended + 1) for count in updates if self._begun < count <= self._ended + 1 + ghost]
            batches = max(taken, default=batches)
            if any(updates):
                self._idle = 0
            if any(count not in (batches, batches + ghost) for count in updates):
                self._miscounted(batches, updates)
            self._log(logs, batches - 1)
        self._write(line for line in self._lines if line.batch < batches)
        self._each_file("flush")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._close()

    def _optimizer(self):
        optimizer = getattr(self.model, "optimizer", None) if self.optimizer is None else self.optimizer
        if optimizer is None:
            raise ValueError(
                "LearningRateLogger needs a model with an optimizer: call model.compile(optimizer, ...), or pass the "
                "optimizer, LearningRateLogger(optimizer=...)."
            )
        return optimizer

    def _last(self):
        """The number of the epoch's last batch; infinity if Keras does not know it."""
        steps = (self.params or {}).get("steps")
        return math.inf if steps is None else steps - 1

    def _log(self, logs, batch):
        if logs is not None:
            logs.update({rate.key: float(rate(rate.first + batch)) for rate in self._rates})

    def _lines_of(self, batches):
        first = self._rates[0].first
        logged = (batch for batch in batches if self._files and (first + batch) % self.every == 0)
        return [_Line(batch, first + batch, [rate(rate.first + batch) for rate in self._rates]) for batch in logged]

    def _write_what_was_taken(self):
        """Writes the lines of an interrupted execution, up to the optimizer's count."""
        if not self._in_epoch or not self._files:
            return
        length = max(self._ended - self._begun + 1, int(getattr(self.model, "steps_per_execution", None) or 1))
        lines = self._lines
        if self._next > self._ended:  # another execution had begun
            lines = lines + self._lines_of(range(self._next, self._next + length))
        taken = self._rates[0].count() - self._rates[0].first
        self._write(line for line in lines if line.batch < taken)

    def _open(self, first):
        """Opens the files, for lines from step `first` on."""
        files = []
        for kind, path in ((_Csv, self.csv), (_TensorBoard, self.log_dir)):
            if path is not None:
                try:
                    files.append(kind(path, first, [rate.key for rate in self._rates]))
                except (OSError, tf.errors.OpError) as error:
                    _warn_of_file(path, error)
        return files

    def _write(self, lines):
        for line in lines:
            self._each_file("write", line.step, line.rates)

    def _each_file(self, method, *arguments):
        for file in list(self._files or ()):
            try:
                getattr(file, method)(*arguments)
            except (OSError, tf.errors.OpError) as error:
                self._files.remove(file)
                with contextlib.suppress(OSError, tf.errors.OpError):
                    file.close()
                _warn_of_file(file.path, error)

    def _close(self):
        self._each_file("close")
        self._files = None

    def _miscounted(self, batches, updates):
        if not any(updates):
            self._idle += batches
            for rate in self._rates if self.verify else ():
                self._check_idle(rate)
        if not self._warned:
            self._warned = True
            rate, counted = next(
                (rate, count) for rate, count in zip(self._rates, updates, strict=True) if count != batches
            )
            warnings.warn(
                f"LearningRateLogger counts one update a batch, but the optimizer counted {counted} in {batches} "
                f"batches from step {rate.first}. The rates logged in this epoch belong to the logger's count; the "
                "next epoch begins from the optimizer's. (Shown once.)",
                UserWarning,
                stacklevel=3,
            )

    def _check_idle(self, rate):
        """Raises if the rate should have changed during the batches without an update."""
        if rate.scale_falls() and self._idle < _SCALING:
            return
        # Eleven of the rates that these batches should have had.
        due = {float(rate(rate.first + self._idle * tenths // 10)) for tenths in range(11)}
        if rate.is_schedule and len(due) > 1:
            raise RuntimeError(
                "the learning rate never changes, although the optimizer has a schedule: "
                f"in {self._idle} batches the optimizer counted no update. It is at step {rate.first}, where the rate "
                f"is {float(rate(rate.first))}. Let train_step call apply or apply_gradients of model.optimizer, with "
                "at least one trainable variable. (Under a LossScaleOptimizer, gradients that are never finite have "
                "the same effect.) To train anyway, use LearningRateLogger(verify=False)."
            )


class _Line(NamedTuple):
    """A line of the files: the rate of each optimizer at a batch of the epoch."""

    batch: int
    step: int
    rates: list[Any]


def _warn_of_file(path, error):
    warnings.warn(f"LearningRateLogger stops writing {path}, and training goes on: {error}", UserWarning, stacklevel=4)


def _add_keras_bases():
    add_keras_bases(LearningRateLogger, "callbacks.Callback")


def _check_traced(train_function, rates):
    """Raises if an optimizer's schedule is not the one that is compiled into `train_function`."""
    # The schedules of the first epoch that a logger saw with this function. They are kept on the function: a schedule
    # may refer to the model, and a global table would keep both alive.
    seen = getattr(train_function, "_lrops_sources", None)
    if seen is None:
        seen = [rate.source for rate in rates]
        with contextlib.suppress(AttributeError):
            train_function._lrops_sources = seen
    traced = schedules_traced_into(train_function)
    for number, rate in enumerate(rates):
        source, before = rate.source, seen[number] if number < len(seen) else rate.source
        # An optimizer that has counted nothing may not be part of the function. `_check_idle` finds that case.
        noted = is_evaluated_by_lrops(source) or is_warmup(source)
        missed = traced is not None and noted and rate.count() > 0
        if missed and not any(_alike(one, source) for one in traced):
            before = "another rate" if before is source else repr(before)
        elif _alike(before, source):
            continue
        raise RuntimeError(
            "the learning rate of the optimizer was replaced after its model was first trained, but the old one is "
            "compiled into the training function and stays in use: call model.compile(...) again, or "
            f"model.make_train_function(force=True). Received: {source!r} after {before}"
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


def _parts(optimizer, model):
    """The optimizers to log, as (name in the logs, optimizer, its LossScaleOptimizer or None)."""
    several = isinstance(optimizer, Sequence)
    found = []
    for outer in optimizer if several else [optimizer]:
        inner = getattr(outer, "inner_optimizer", outer)  # of a LossScaleOptimizer
        parts = [inner]
        if hasattr(inner, "optimizers"):
            several = True
            parts = _used(outer, inner, model)
        found += [(part, outer if outer is not inner else None) for part in parts]
    named: dict[str, Any] = {}
    for part, scaler in found:
        key = name = _KEY
        if several:
            key = name = f"{_KEY}_{getattr(part, 'name', None) or getattr(part, '_name', type(part).__name__)}"
        number = 1
        while key in named:
            key, number = f"{name}_{number}", number + 1
        named[key] = part, scaler
    return [(key, part, scaler) for key, (part, scaler) in named.items()]


def _used(outer, inner, model):
    """The optimizers that `inner` is made of, without those that are known to have no variables."""
    variables = getattr(model, "built", False) and model.trainable_variables
    if variables and not getattr(inner, "built", True):  # otherwise, Keras builds it in the first batch
        with getattr(model, "distribute_strategy", tf.distribute.get_strategy()).scope():
            outer.build(variables)
    parts = [*inner.optimizers]
    used = [part for part in parts if getattr(part, "built", True)] or parts
    if not used:
        raise ValueError(
            "the optimizer has not yet made the optimizers that it consists of: call model.build(input_shape) before "
            f"fit. Received: {inner!r}"
        )
    return used


class _Rate:
    """The rate of one optimizer at a step: its schedule's rate, or the constant rate that was last read."""

    def __init__(self, key, optimizer, scaler):
        self.key = key
        self._optimizer, self._scaler = optimizer, scaler  # `scaler`: the LossScaleOptimizer around it, or None
        # An optimizer's schedule has no public name, except in legacy optimizers: `learning_rate` is the current rate.
        self.source = getattr(optimizer, "_learning_rate", None)
        if self.source is None:
            self.source = getattr(optimizer, "learning_rate", None)
        if self.source is None or not hasattr(optimizer, "iterations"):
            raise ValueError(
                "the optimizer has no learning rate that could be logged: pass the optimizers that have one, "
                f"LearningRateLogger(optimizer=[...]). Received: {optimizer!r}"
            )
        bases = tuple(base for _, base in in_each_keras("optimizers.schedules.LearningRateSchedule"))
        self.is_schedule = isinstance(self.source, bases)
        # A legacy optimizer casts the step to float32 for a schedule, and may divide the rate (`decay`). In a graph, a
        # curve of lrops finds the integer before the cast, so it is evaluated with that.
        cast = hasattr(optimizer, "_initial_decay") and not isinstance(self.source, Curve)
        self._step_dtype = tf.float32 if cast else tf.int64
        self._decay = float(getattr(optimizer, "_initial_decay", 0.0))

    def begin(self, batch):
        """Reads the step at which the epoch begins. `batch` is the first batch of it that is trained."""
        self.first = self.count() - batch
        self._noted = None
        self._scale = self._loss_scale()

    def _counter(self):
        """The variable that the optimizer passes to a schedule."""
        # With gradient accumulation, `iterations` is that variable divided, and the variable has no public name.
        accumulates = getattr(self._optimizer, "gradient_accumulation_steps", None)
        return self._optimizer._iterations if accumulates else self._optimizer.iterations

    def count(self):
        """The optimizer's step. Reading it waits for the device."""
        return int(self._counter().numpy())

    def note_count(self):
        """Copies the count for `updates` before another callback can change it. It does not wait for the device."""
        self._noted = tf.convert_to_tensor(unwrap_variable(self._counter()))

    def updates(self):
        """The updates since the epoch began, plus the number of batches that were skipped at its beginning."""
        return (self.count() if self._noted is None else int(self._noted)) - self.first

    def _loss_scale(self):
        if self._scaler is None:
            return None
        names = ("dynamic_scale", "loss_scale", "initial_scale")  # Keras 3; tf_keras; Keras 3 before the build
        scales = (getattr(self._scaler, name, None) for name in names)
        return float(_value(next(scale for scale in scales if scale is not None)))

    def scale_falls(self):
        """Whether a LossScaleOptimizer around the optimizer has lowered its scale since the epoch began."""
        return self._scale is not None and self._loss_scale() < self._scale

    def read(self, step):
        """Reads what a callback may change during the execution that begins at `step`, for `__call__` to use."""
        self._evaluated = {}
        if not self.is_schedule:
            self._constant = np.asarray(_value(self._optimizer.learning_rate))
        elif is_evaluated_by_lrops(self.source):
            self._peak = value_on_host(self.source.initial_learning_rate)
        else:
            self._evaluate(step)

    def _evaluate(self, step):
        """The rate of a schedule that lrops does not evaluate. It may read a variable, so it is asked once a step."""
        if step not in self._evaluated:
            with tf.device("CPU:0"):
                given, count = tf.constant(step, self._step_dtype), tf.constant(step, tf.int64)
                # In a graph, a LinearWarmup counts with the integer before the cast, and passes on the floating dtype.
                rate = self.source._rate(count, given) if is_warmup(self.source) else self.source(given)
                self._evaluated[step] = np.asarray(_value(rate))[()]
        return self._evaluated[step]

    def __call__(self, step):
        """The rate at `step`, an int, as a NumPy scalar."""
        if not self.is_schedule:
            rate = self._constant[()]
        elif is_evaluated_by_lrops(self.source):
            rate = self.source._on_host(step, self._peak)
        else:
            rate = self._evaluate(step)
        return rate / np.float32(1 + self._decay * step) if self._decay else rate


def _value(rate):
    return rate.numpy() if hasattr(rate, "numpy") else rate


class _Csv:
    """The CSV file: lines of step and rates."""

    def __init__(self, path, first, keys):
        self.path = path
        self._header = ",".join(["step", *keys]).encode() + b"\n"
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        self._file = open(self.path, "a+b")  # noqa: SIM115  (stays open while training runs)
        kept = self._length_before(first)
        self._file.truncate(kept)
        if not kept:
            self._file.write(self._header)

    def _length_before(self, first):
        """The number of bytes of the lines before step `first`. A line that a crash cut short does not count."""
        self._file.seek(0)
        header = self._file.readline()
        length = len(header)
        try:
            if header != self._header:
                if self._header.startswith(header):  # empty, or the header was cut short
                    return 0
                raise ValueError
            for line in self._file:
                if not line.endswith(b"\n") or int(line.split(b",")[0]) >= first:
                    break
                length += len(line)
        except ValueError:
            self._file.close()
            raise ValueError(
                "csv must be a new file, or one that LearningRateLogger wrote with the same columns: choose another "
                f"name. Received: csv={self.path!r}, a file with other content"
            ) from None
        return length

    def write(self, step, rates):
        self._file.write(",".join(map(str, [step, *rates])).encode() + b"\n")

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()


class _TensorBoard:
    """The event files for TensorBoard: a scalar for each rate. Writing them does not need TensorBoard."""

    _SCALAR = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR", plugin_data={"plugin_name": "scalars"})

    def __init__(self, path, first, keys):
        self.path, self._keys = path, keys
        self._writer = tf.summary.create_file_writer(self.path)

    def write(self, step, rates):
        with self._writer.as_default():
            for key, rate in zip(self._keys, rates, strict=True):
                tf.summary.write(key, np.float32(rate), step, self._SCALAR)

    def flush(self):
        self._writer.flush()

    def close(self):
        self._writer.close()


_add_keras_bases()
