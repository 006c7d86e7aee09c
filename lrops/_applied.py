"""The rates that an optimizer applied, read from its own count of updates.

Nothing is predicted. The count is copied when a batch begins, and read when the batch has been started. If it went from
a to b since the last batch, the updates a .. b - 1 were made. At the end of an epoch, the count itself is read.
"""

import functools
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from lrops._arguments import unwrap_variable
from lrops._keras import SCHEDULE, in_each_keras
from lrops._schedule import is_evaluated_by_lrops

_KEY = "learning_rate"
# How many batches in a row may go without an update while a LossScaleOptimizer lowers its scale.
_SCALING = 30


class Series:
    """The rates of one optimizer, and the updates that it has made."""

    def __init__(self, key, optimizer, outer):
        self.key, self.optimizer = key, optimizer
        self._outer = outer  # a LossScaleOptimizer around it, or the optimizer itself
        if _source(optimizer) is None or not hasattr(optimizer, "iterations"):
            raise ValueError(
                "the optimizer has no learning rate that could be logged: pass the optimizers that have one, "
                f"LearningRateLogger(optimizer=[...]). Received: {optimizer!r}"
            )
        # A legacy optimizer casts the step to float32 for a schedule, and may divide the rate (`decay`).
        self.step_dtype = tf.float32 if hasattr(optimizer, "_initial_decay") else tf.int64
        self.decay = float(getattr(optimizer, "_initial_decay", 0.0))
        self.start: Any = None
        self._count = None  # the last one that was read
        self._unread: list[tuple[Any, BatchStart]] = []
        self._runs = False  # a batch
        self.start_epoch()

    def start_epoch(self):
        """Takes the schedule that the optimizer has now."""
        self.source = _source(self.optimizer)  # another schedule may have been set
        self.is_schedule = isinstance(self.source, tuple(base for _, base in in_each_keras(SCHEDULE)))
        # The variable that the optimizer passes to a schedule. With gradient accumulation, `iterations` is that one
        # divided, and it has no public name. (Keras 3.3 divides nothing.)
        accumulates = getattr(self.optimizer, "gradient_accumulation_steps", None)
        counter = getattr(self.optimizer, "_iterations", None) if accumulates else None
        self.counter = unwrap_variable(self.optimizer.iterations if counter is None else counter)
        self.moved, self._last = False, None
        self._scale = self._loss_scale()

    def start_batch(self):
        """Copies what the rates of the next batch follow from, without waiting for a device."""
        before, self.start = self.start, BatchStart(self)
        self._unread.append((lambda start=self.start: start.count, before or self.start))
        self._runs = True

    def end_batch(self, last):
        """Notes that the batch has been started. If it is the `last` of an epoch, copies the count that it leaves."""
        self._runs = False
        if last:  # before another callback can change the count
            self._unread.append((_copied(self.counter), self.start))

    def updates(self):
        """The updates that were not yet given, as pairs of the step and the start of the batch that made it."""
        unread, self._unread, found = self._unread, [], []
        for read, start in unread:
            before, self._count = self._count, int(read())
            if before is not None:
                found += [(step, start) for step in range(before, self._count)]
                self.moved |= before != self._count
        self._last = found[-1] if found else self._last
        return found

    def end_epoch(self):
        """All updates of the epoch. This waits for the device."""
        found = self.updates()
        if self._runs:  # the data ended in this batch: Keras also counts a step for which there was none
            count = int(_copied(self.counter)())
            self._unread.append((lambda: max(self._count, count - 1), self.start))
            found += self.updates()
            self._count = count
            return found
        return found + self.end()

    def end(self):
        """All updates up to now, also of a batch that was interrupted after its update. This waits for the device."""
        self._unread.append((_copied(self.counter), self.start))
        return self.updates()

    def rate_of_batch(self, several):
        """The rate at the count before the batch. For several batches in one execution, that of the last update."""
        count = self.start.count
        return float(self.start.rate(max(count, int(_copied(self.counter)()) - 1) if several else count))

    def rate_of_epoch(self):
        """The rate of the epoch's last update, or the current rate if there was none."""
        step, start = self._last or (self.start.count, self.start)
        return float(start.rate(step))

    def check_idle(self, batches):
        """Raises if the rate should have changed during these batches without an update."""
        scale = self._loss_scale()
        if scale is not None and scale < self._scale and batches < _SCALING:
            return
        count = self.start.count
        due = {float(self.start.rate(count + batches * tenths // 10)) for tenths in range(11)}
        if self.is_schedule and len(due) > 1:
            raise RuntimeError(
                "the learning rate never changes, although the optimizer has a schedule: "
                f"in {batches} batches the optimizer counted no update. It is at step {count}, where the rate is "
                f"{float(self.start.rate(count))}. Let train_step call apply or apply_gradients of model.optimizer, "
                "with at least one trainable variable. (Under a LossScaleOptimizer, gradients that are never finite "
                "have the same effect.) To train anyway, use LearningRateLogger(verify=False)."
            )

    def _loss_scale(self):
        names = ("dynamic_scale", "loss_scale", "initial_scale")  # Keras 3; tf_keras; Keras 3 before the build
        scales = (getattr(self._outer, name, None) for name in names)
        scale = next((scale for scale in scales if scale is not None), None)
        return None if scale is None else float(_copied(scale)())


class BatchStart:
    """The optimizer's count when a batch began, and what else its rate depended on then."""

    def __init__(self, series):
        self._count = _copied(series.counter)
        self._decay = series.decay
        self._rates: dict[int, Any] = {}
        source, dtype = series.source, series.step_dtype
        if not series.is_schedule:
            constant = _copied(series.optimizer.learning_rate)
            self._evaluate = lambda step: constant()
        elif is_evaluated_by_lrops(source):
            peak = _copied(source.initial_learning_rate)
            given = int if dtype is tf.int64 else np.float32
            self._evaluate = lambda step: source._on_host(given(step), float(peak()))
        else:  # it may read variables, which a callback may change
            now = _copied(source(tf.cast(series.counter, dtype)))
            self._evaluate = lambda step: now() if step == self.count else _on_cpu(source, step, dtype)

    @functools.cached_property
    def count(self):
        """The count. Reading it waits for the step before the batch."""
        return int(self._count())

    def rate(self, step):
        """The rate at `step` as a NumPy number."""
        if step not in self._rates:
            rate = self._evaluate(step)
            self._rates[step] = np.asarray(rate / np.float32(1 + self._decay * step) if self._decay else rate)[()]
        return self._rates[step]


def _on_cpu(schedule, step, dtype):
    with tf.device("CPU:0"):
        return _copied(schedule(tf.constant(step, dtype)))()


# Reading from a GPU waits for all that was enqueued on it before. So a copy is read at once, but in a thread.
_COPIES = ThreadPoolExecutor(64, "lrops_copies")


def _copied(value):
    """A function that gives the number that a variable, a tensor or a number has now. Only that function waits."""
    if not hasattr(value, "dtype"):
        return lambda: value
    value = unwrap_variable(value)
    try:
        tensor = tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype)  # half the time of the other
    except (AttributeError, ValueError):  # no variable, or one for each replica
        tensor = tf.convert_to_tensor(value)
    return tensor.numpy if "CPU" in tensor.device else _COPIES.submit(tensor.numpy).result


def _source(optimizer):
    """The schedule or the constant rate of an optimizer, or None."""
    # Only legacy optimizers have a public name for a schedule: elsewhere, `learning_rate` is the current rate.
    source = getattr(optimizer, "_learning_rate", None)
    return getattr(optimizer, "learning_rate", None) if source is None else source


def series_of(optimizer, model):
    """A `Series` for each optimizer in `optimizer`, which is one, a list, a wrapper or made of several."""
    several = isinstance(optimizer, Sequence)
    found = []
    for outer in optimizer if several else [optimizer]:
        inner = _inside(outer)
        parts = [inner]
        if hasattr(inner, "optimizers"):
            several = True
            parts = _used(outer, inner, model)
        found += [(part, outer) for part in parts]
    named: dict[str, Series] = {}
    for part, outer in found:
        key = name = f"{_KEY}_{_name(part)}" if several else _KEY
        number = 1
        while key in named:
            key, number = f"{name}_{number}", number + 1
        named[key] = Series(key, part, outer)
    return [*named.values()]


def _inside(optimizer):
    """The optimizer inside wrappers, such as a LossScaleOptimizer, whose `learning_rate` is not their own."""
    keras_own = {cls for _, base in in_each_keras("optimizers.Optimizer") for cls in base.__mro__}
    owner = next((cls for cls in type(optimizer).__mro__ if "learning_rate" in vars(cls)), None)
    wrapped = {id(value): value for value in vars(optimizer).values() if "iterations" in dir(value)}
    return optimizer if owner is None or owner in keras_own or len(wrapped) != 1 else _inside(*wrapped.values())


def _name(optimizer):
    """The optimizer's name, without the number that Keras puts after the name of a class to make it unique."""
    cls = type(optimizer).__name__
    name = getattr(optimizer, "name", None) or getattr(optimizer, "_name", cls)
    plain = re.sub(r"_\d+$", "", name)
    return plain if plain.replace("_", "").lower() == cls.lower() else name


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
