"""`LearningRateLogger`, the Keras callback that logs the rate each batch was trained with."""

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
# So many batches in a row may be without an update while a LossScaleOptimizer lowers its scale.
_SCALING = 30

if TYPE_CHECKING:
    from keras.callbacks import Callback as _Callback
else:

    class _Callback:
        """What `LearningRateLogger` derives from before any Keras: see `add_keras_bases`."""


class LearningRateLogger(_Callback):
    """Logs the learning rate that each batch was trained with; Keras itself shows that of the next step.

    The rate goes into `logs` as "learning_rate": the progress bar shows it for each batch, and `History` holds that of
    each epoch's last batch. What reads `logs` too, such as `CSVLogger`, must come after it in the list of callbacks.

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

    An optimizer that is made of others, such as `keras.optimizers.MultiOptimizer`, has a series for each of them, named
    as in Keras' TensorBoard callback: "learning_rate_adam" and so on, in `logs`, as a column of the CSV file and in
    TensorBoard.

    With a schedule whose peak is a number, no batch waits for a device because of this callback. It counts the steps
    itself, compares with the optimizer when an epoch ends, and warns, once, if that counted otherwise: in that epoch
    what it logged is the rate at the steps it counted. A curve of lrops is evaluated by `on_host`; a `LinearWarmup`,
    another schedule, and a subclass with its own `__call__`, eagerly on the CPU, in some 0.3 ms. A constant rate, or a
    peak that a variable holds, is read from its device before each batch (each execution, with `steps_per_execution`),
    and that does wait.

    In a training loop of your own, call the hooks of a `keras.callbacks.CallbackList` as `fit` does.

    Args:
        every: The CSV file and TensorBoard get the steps that this divides. `logs` get every batch.
        log_dir: A folder for TensorBoard, where "learning_rate" is drawn over the optimizer's steps.
        csv: A file for lines of step and rate, flushed when an epoch and when training ends. Its folder is made if
            there is none. A run that begins at step n keeps the lines before n in a file that is there already, and
            drops those from n on, which it writes again: after a crash none is doubled and none is missing. A run that
            begins at 0 so begins the file anew.
        verify: Raise where a schedule was given and cannot have any effect. See below.
        optimizer: The optimizer to log, or a list of optimizers, if it is not the model's: of a GAN the two that its
            `train_step` uses.

    Where the disk is full, or a file cannot be written for any other reason, training goes on without that file, and
    one warning says so. Workers of a multi-worker run need a file each.

    Raises:
        TypeError: `every` is not an integer, or `log_dir` or `csv` no path.
        ValueError: `every` is below 1; or, when training begins, `csv` is a file of something else, or the model has no
            optimizer, or one without a learning rate.
        RuntimeError: with `verify`, the rate does not move although it should, which is one of two things. (1) When an
            epoch ends, the optimizer has not counted a single update in it, and the schedule would have given another
            rate in as many steps. Where the schedule is flat over them (a hold, the floor, alpha=1), a rate that
            stands still is right, and nothing is raised. Under a LossScaleOptimizer that still lowers its scale, 30
            batches may pass first. (2) When an epoch begins, the optimizer has another schedule than the one that is
            compiled into the model's training function. A schedule of lrops knows where it was compiled in; of another
            one a logger must have seen the training function before.
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
                "LearningRateLogger reads the optimizer's step between batches, which needs eager execution: remove "
                "tf.compat.v1.disable_eager_execution() or disable_v2_behavior(), or log without it."
            )
        if self._files is not None:  # the last run was interrupted
            self._write_what_was_taken()
        self._close()
        self._parts = _parts(self._optimizer(), self.model)
        self._rates = [_Rate(*part) for part in self._parts]  # refuses an optimizer without a rate
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
        # An execution is the batches between two calls of Keras. The latest is kept until another has ended or the
        # optimizer has said how long it was: Keras names the batch that a whole one would end with.
        self._begun, self._ended, self._next, self._lines = 0, -1, 0, []
        self._in_epoch = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras, and once more where the data ends than `on_train_batch_end`."""
        if not self._in_epoch:  # in a loop that names no epoch
            self.on_epoch_begin(0)
        # Now every callback has restored or set what it does when training or an epoch begins.
        if self._ended < 0:
            self._begun = batch  # not 0 where tf_keras resumes in the middle of an epoch
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
        if self._begun == self._ended:  # it can have had no other length
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
            # Where the data ended in an unknown place, a batch was begun that had none: it can have raised the count.
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
                "LearningRateLogger needs a model with an optimizer: call model.compile(optimizer, ...), or name the "
                "optimizer, LearningRateLogger(optimizer=...)."
            )
        return optimizer

    def _last(self):
        """The last batch of the epoch, if Keras knows it."""
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
        """The lines of the execution in which training was interrupted, as far as the optimizer has counted."""
        if not self._in_epoch or not self._files:
            return
        length = max(self._ended - self._begun + 1, int(getattr(self.model, "steps_per_execution", None) or 1))
        lines = self._lines
        if self._next > self._ended:  # it had begun
            lines = lines + self._lines_of(range(self._next, self._next + length))
        taken = self._rates[0].count() - self._rates[0].first
        self._write(line for line in lines if line.batch < taken)

    def _open(self, first):
        """The files, from step `first` on."""
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
                f"LearningRateLogger counts one update a batch, and the optimizer counted {counted} in {batches} "
                f"batches from step {rate.first}: the rates of this epoch were logged for the steps that it counted. "
                "The logger goes on from the optimizer's count. (Said once.)",
                UserWarning,
                stacklevel=3,
            )

    def _check_idle(self, rate):
        """Raises if the rate should have moved in the batches that were without an update."""
        if rate.scale_falls() and self._idle < _SCALING:
            return
        # Some of the rates that so many batches should have had.
        due = {float(rate(rate.first + self._idle * tenths // 10)) for tenths in range(11)}
        if rate.is_schedule and len(due) > 1:
            raise RuntimeError(
                "the learning rate never changes, although the optimizer has a schedule: "
                f"{self._idle} batches were trained, and the optimizer counted no update and stands at step "
                f"{rate.first}, where the rate is {float(rate(rate.first))}. Let train_step call apply or "
                "apply_gradients of model.optimizer, on at least one trainable variable. Gradients that are never "
                "finite under a LossScaleOptimizer have the same effect. LearningRateLogger(verify=False) goes on."
            )


class _Line(NamedTuple):
    """What the files get: a rate of each optimizer, at a batch of the epoch."""

    batch: int
    step: int
    rates: list[Any]


def _warn_of_file(path, error):
    warnings.warn(f"LearningRateLogger stops writing {path}, and training goes on: {error}", UserWarning, stacklevel=4)


def _add_keras_bases():
    add_keras_bases(LearningRateLogger, "callbacks.Callback")


def _check_traced(train_function, rates):
    """Refuses a schedule that was set after the one that `train_function` has compiled in."""
    # What the function was traced with, as far as a logger has seen it. Kept on the function: a schedule may refer to
    # the model, and a table would keep both alive.
    seen = getattr(train_function, "_lrops_sources", None)
    if seen is None:
        seen = [rate.source for rate in rates]
        with contextlib.suppress(AttributeError):
            train_function._lrops_sources = seen
    traced = schedules_traced_into(train_function)
    for number, rate in enumerate(rates):
        source, before = rate.source, seen[number] if number < len(seen) else rate.source
        # An optimizer that has counted nothing may not be in the function at all, which is not for here.
        noted = is_evaluated_by_lrops(source) or is_warmup(source)
        missed = traced is not None and noted and rate.count() > 0
        if missed and not any(_alike(one, source) for one in traced):
            before = "another rate" if before is source else repr(before)
        elif _alike(before, source):
            continue
        raise RuntimeError(
            "the learning rate of the optimizer was replaced after its model was first trained, and training goes on "
            "with the old one, which is compiled into the training function: call model.compile(...) again, or "
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
            # A config has the number that a variable holds now; another variable will hold others.
            and _peak_variable(one) is _peak_variable(other)
        )
    except (AttributeError, NotImplementedError, TypeError, ValueError):  # no config, or one that == cannot compare
        return False


def _parts(optimizer, model):
    """The optimizers that have a rate: the name of each in the logs, itself, and its LossScaleOptimizer or None."""
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
    """Of the optimizers that one consists of, those that were given variables, as far as is known."""
    variables = getattr(model, "built", False) and model.trainable_variables
    if variables and not getattr(inner, "built", True):  # Keras would build it in the first batch
        with getattr(model, "distribute_strategy", tf.distribute.get_strategy()).scope():
            outer.build(variables)
    parts = [*inner.optimizers]
    used = [part for part in parts if getattr(part, "built", True)] or parts
    if not used:
        raise ValueError(
            "the optimizer has not yet made those that it consists of: build the model before fit, "
            f"model.build(input_shape). Received: {inner!r}"
        )
    return used


class _Rate:
    """The rate of an optimizer at a step: from its schedule, or as it was when it was last read."""

    def __init__(self, key, optimizer, scaler):
        self.key = key
        self._optimizer, self._scaler = optimizer, scaler  # the latter a LossScaleOptimizer around it, or None
        # A schedule has no public name: `learning_rate` is its rate at the optimizer's step, but for legacy optimizers.
        self.source = getattr(optimizer, "_learning_rate", None)
        if self.source is None:
            self.source = getattr(optimizer, "learning_rate", None)
        if self.source is None or not hasattr(optimizer, "iterations"):
            raise ValueError(
                "the optimizer has no learning rate that could be logged: name the optimizers that have one, "
                f"LearningRateLogger(optimizer=[...]). Received: {optimizer!r}"
            )
        bases = tuple(base for _, base in in_each_keras("optimizers.schedules.LearningRateSchedule"))
        self.is_schedule = isinstance(self.source, bases)
        # A legacy optimizer casts the step that it gives a schedule, and can divide what comes out. A subclass of ours
        # looks through that cast in a graph.
        cast = hasattr(optimizer, "_initial_decay") and not isinstance(self.source, Curve)
        self._step_dtype = tf.float32 if cast else tf.int64
        self._decay = float(getattr(optimizer, "_initial_decay", 0.0))

    def begin(self, batch):
        """Notes at which step the epoch begins, of which `batch` is the first batch to be trained."""
        self.first = self.count() - batch
        self._noted = None
        self._scale = self._loss_scale()

    def _counter(self):
        """The variable that the optimizer gives a schedule."""
        # With gradient accumulation `iterations` is this number divided, and what is divided has no public name.
        accumulates = getattr(self._optimizer, "gradient_accumulation_steps", None)
        return self._optimizer._iterations if accumulates else self._optimizer.iterations

    def count(self):
        """The step at which the optimizer is; waits for its device."""
        return int(self._counter().numpy())

    def note_count(self):
        """Keeps the count for `updates`, before a callback can set it, and without waiting for the device."""
        self._noted = tf.convert_to_tensor(unwrap_variable(self._counter()))

    def updates(self):
        """The number of updates since the epoch began, and of batches before the first one that was trained in it."""
        return (self.count() if self._noted is None else int(self._noted)) - self.first

    def _loss_scale(self):
        if self._scaler is None:
            return None
        names = ("dynamic_scale", "loss_scale", "initial_scale")  # Keras 3; tf_keras; Keras 3 before it is built
        scales = (getattr(self._scaler, name, None) for name in names)
        return float(_value(next(scale for scale in scales if scale is not None)))

    def scale_falls(self):
        """Whether the optimizer is under a LossScaleOptimizer that has lowered its scale since the epoch began."""
        return self._scale is not None and self._loss_scale() < self._scale

    def read(self, step):
        """Before an execution that begins at `step`: fetches what a callback may change before `__call__` is asked."""
        self._evaluated = {}
        if not self.is_schedule:
            self._constant = np.asarray(_value(self._optimizer.learning_rate))
        elif is_evaluated_by_lrops(self.source):
            self._peak = value_on_host(self.source.initial_learning_rate)
        else:
            self._evaluate(step)

    def _evaluate(self, step):
        """The rate of a schedule that is not evaluated by lrops. It may read a variable: each step is asked once."""
        if step not in self._evaluated:
            with tf.device("CPU:0"):
                given, count = tf.constant(step, self._step_dtype), tf.constant(step, tf.int64)
                # In a graph a LinearWarmup looks through the cast, but passes the dtype on.
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
    """Lines of step and rates in a file."""

    def __init__(self, path, first, keys):
        self.path = path
        self._header = ",".join(["step", *keys]).encode() + b"\n"
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        self._file = open(self.path, "a+b")  # noqa: SIM115  (open while training runs)
        kept = self._length_before(first)
        self._file.truncate(kept)
        if not kept:
            self._file.write(self._header)

    def _length_before(self, first):
        """The bytes of the lines before step `first`; a line that a crash cut short is not one."""
        self._file.seek(0)
        header = self._file.readline()
        length = len(header)
        try:
            if header != self._header:
                if self._header.startswith(header):  # nothing yet, or cut short
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

    def write(self, step, rates):
        self._file.write(",".join(map(str, [step, *rates])).encode() + b"\n")

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()


class _TensorBoard:
    """A scalar for each rate in a folder of event files, which it takes no TensorBoard to write."""

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
