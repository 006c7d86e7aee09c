"""The bases of the schedules: arguments, evaluation and saved form. schedules.py has the classes for users."""

import dataclasses
import numbers
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lrops import _hyperparameters, _tracing, curves, ops, plotting
from lrops._arguments import HYPERPARAMETERS, as_step, as_step_on_host, dtype_name, shown
from lrops._keras import SCHEDULE, add_missing_bases, deserialized, in_each_keras, serialized

if TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule as _Base
else:

    class _Base:
        """The first base of `Schedule`. `add_keras_bases` adds those of Keras."""


_LAST_STEP = 2**63 - 1
_S = TypeVar("_S", bound="Schedule")


def is_evaluated_by_lrops(schedule: Any) -> bool:
    """Whether it is a curve of lrops, and its class does not override `__call__`."""
    return type(schedule).__call__ is CurveSchedule.__call__


def notes_itself(schedule: Any) -> bool:
    """Whether its `__call__`, which a subclass may override, is one of lrops, which `_tracing.note`s the schedule."""
    return type(schedule).__call__ in (CurveSchedule.__call__, WarmupOfSchedule.__call__)


class Schedule(_Base):
    """The base of all schedules of lrops. A subclass is a dataclass of its arguments."""

    autograph_info__: ClassVar[dict[str, Any]] = {}  # TensorFlow's mark for code that AutoGraph must not convert
    start_step: int
    _to_change: ClassVar[str] = ""  # a further fix in the error after an assignment
    _attributes: dict[str, Any]  # of the op

    def __post_init__(self) -> None:
        """Checks the types of the arguments."""
        add_missing_bases()
        fields = sorted(dataclasses.fields(self), key=lambda field: bool(field.kw_only))
        for field in fields:  # in the order of the signature
            setattr(self, field.name, HYPERPARAMETERS[field.type](field.name, getattr(self, field.name)))
        self._arguments = tuple(field.name for field in fields)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a pickled or copied schedule. This process may have imported another Keras."""
        add_missing_bases()
        self.__dict__.update(state)

    def __setattr__(self, name: str, value: Any) -> None:
        """Raises if an argument is assigned: a traced function would keep the old value."""
        if name in self.__dict__.get("_arguments", ()):
            raise AttributeError(
                f"{name} cannot be assigned, because a traced function keeps the old value: make a new "
                f"{type(self).__name__} and call model.compile again{self._to_change}. Received: {name}={shown(value)}"
            )
        super().__setattr__(name, value)

    def _without_step(self):
        return TypeError(  # an optimizer passes no step to an object that it does not recognize as a schedule
            f"{type(self).__name__} was called without a step: pass one, such as schedule(optimizer.iterations). If an "
            "optimizer of Keras made the call: import keras (or tf_keras) before lrops, in this process and in each "
            "worker. If an optimizer of tf.compat.v1.train or tensorflow.python.keras made it: these take no schedule, "
            "so give it lambda: schedule(step), with the variable that counts its updates."
        )

    def on_host(self, step: npt.ArrayLike) -> Any:
        """The learning rate at `step` as a NumPy array or number, computed by TensorFlow on the CPU.

        The arguments and errors are those of `WarmupCosineDecay.on_host`, and a RuntimeError without eager execution.
        """
        step = as_step_on_host(step)
        with tf.init_scope(), tf.device("CPU:0"):
            if not tf.executing_eagerly():
                raise RuntimeError(
                    f"on_host of a {type(self).__name__} needs eager execution: in a graph for a session, call the "
                    "schedule itself."
                )
            return np.asarray(self(step))[()]

    def plot(self, path: str | os.PathLike[str] | None = None, ax: Any = None, log: bool = False) -> Any:
        """Draws the curve and marks its phases. `lrops.plotting.plot` draws several curves on one axis.

        The arguments, the result (the matplotlib axes) and the errors are those of `lrops.plotting.plot`.

        Examples:
            >>> import lrops
            >>> ax = lrops.WarmupCosineDecay(1e-3, 1000, 100_000).plot()
        """
        return plotting.plot(self, path=path, ax=ax, log=log)

    @classmethod
    def from_config(cls: type[_S], config: dict[str, Any]) -> _S:
        """Makes a schedule from the dict that `get_config` returned. The arguments are checked again."""
        return cls(**config)

    def _as_call(self, arguments):
        written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        return f"lrops.{type(self).__name__}({written})"


class CurveSchedule(Schedule, _hyperparameters.CurveArguments):
    """The base of the schedules that a compiled op evaluates. A subclass names its op."""

    _op: ClassVar[Callable[..., Any]]
    _to_change = "; to change the peak while training, pass a tf.Variable as initial_learning_rate and assign to that"
    name: str

    def __post_init__(self) -> None:
        """Checks the arguments and prepares the op's attributes."""
        super().__post_init__()
        curve = self._checked_curve()
        # With a peak in a variable, the op evaluates the curve of peak 1, and the product with the variable follows.
        self._tunable = not isinstance(self.initial_learning_rate, float)
        self._evaluated = curve | ({"initial_learning_rate": 1.0, "dtype": "float64"} if self._tunable else {})
        self._attributes = ops.as_attributes(self._evaluated) | {"name": self.name}

    def __call__(self, step: Any = None) -> tf.Tensor:
        """The learning rate at `step`.

        A step counts optimizer updates. Some optimizers cast their count to float32 or float64. Such a step is rounded
        down to an integer. A float32 count is exact up to `2**24` updates.

        Args:
            step: A Python number, NumPy number or array, tensor, `tf.Variable` or `keras.Variable` of any shape. The
                dtype is any integer dtype except uint64, or float32 or float64 with whole numbers. Any int64 is valid,
                also below 0.

        Returns:
            A tensor of `dtype` and of the shape of `step`.

        Raises:
            TypeError: `step` has another dtype, such as uint64, or float16, which cannot count. Under mixed precision,
                a floating weight of a layer is float16 or bfloat16 in the layer's call: keep the count in an int64
                weight.
            ValueError: A number does not fit in int64, is NaN, or has a fraction and its value can be seen.
        """
        if step is None:
            raise self._without_step()
        _tracing.note(self)
        rate = self._op(step, self._attributes)
        return ops.scaled(rate, self.initial_learning_rate, self.dtype) if self._tunable else rate

    # AutoGraph has nothing to convert here, and it warns in a frozen program, where it finds no sources. This mark is
    # the one that tf.autograph.experimental.do_not_convert sets; its wrapper would slow down each eager call.
    __call__.autograph_info__ = Schedule.autograph_info__  # type: ignore[attr-defined]

    def on_host(self, step: npt.ArrayLike) -> Any:
        """The learning rate at `step`, computed on the CPU without TensorFlow. It does not wait for a GPU.

        Two cases differ. A peak in a variable is read from the variable's device, so the call waits for that device. A
        subclass with its own `__call__` is evaluated in TensorFlow.

        Args:
            step: Optimizer steps, as in `__call__`, with the same errors. A tensor of a function that is being traced
                raises a TypeError.

        Returns:
            A NumPy array of `dtype` and of the shape of `step`, or a NumPy number for a single step. The bits are those
            of `__call__`.

        Examples:
            >>> import lrops
            >>> float(lrops.WarmupCosineDecay(1e-3, 1000, 100_000).on_host(500))
            0.0005000000237487257
        """
        return self._on_host(step, self.initial_learning_rate)

    def _on_host(self, step, peak):
        """`on_host` with a given peak: the variable, or a number that was read from it before."""
        if not is_evaluated_by_lrops(self):  # the `__call__` of the subclass defines the rate
            return super().on_host(step)
        rate = curves.rates(self._evaluated, as_step_on_host(step))
        return (ops.scaled_on_host(rate, peak, self.dtype) if self._tunable else rate)[()]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as numbers and strings that JSON can hold.

        A peak in a variable is saved as the number that the variable holds now. A warning is shown if that number is
        not a valid peak, such as 0.
        """
        try:
            curve = self._checked_curve()
        except ValueError as error:
            curve = self._curve()
            warnings.warn(
                f"the variable of initial_learning_rate holds {curve['initial_learning_rate']}: a model saved with it "
                f"can be loaded with compile=False only. Assign a valid number before you save: {error}",
                UserWarning,
                stacklevel=2,
            )
        return curve | {"name": self.name}

    def _curve(self):
        """All arguments except the name, as the formula takes them. A variable gives its number."""
        curve = {name: getattr(self, name) for name in self._arguments if name != "name"}
        return curve | {"initial_learning_rate": ops.value_on_host(self.initial_learning_rate)}

    def _checked_curve(self):
        curve = self._curve()
        curves.rates(curve, np.zeros(0, np.int64))  # raises if an argument breaks a rule
        return curve

    def __repr__(self) -> str:
        """The call that makes this schedule."""
        return self._as_call(self.get_config())


@dataclasses.dataclass(eq=False, repr=False)
class WarmupOfSchedule(Schedule):
    """The base of `LinearWarmup`: a warmup in front of any schedule of Keras."""

    schedule: _hyperparameters.KerasSchedule
    warmup_steps: int
    _: dataclasses.KW_ONLY
    warmup_start: float = 0.0
    hold_steps: int = 0
    start_step: int = 0
    name: str | None = None

    def __post_init__(self) -> None:
        """Checks the arguments and prepares the op's attributes."""
        _check_is_schedule(self.schedule)
        super().__post_init__()
        self._before = self.warmup_steps + self.hold_steps
        if self._before >= 2**62:
            raise ValueError(
                "warmup_steps + hold_steps must be below 2^62. "
                f"Received: warmup_steps={self.warmup_steps}, hold_steps={self.hold_steps}"
            )
        # The warmup is a factor: a curve that rises to 1 and stays there.
        own = {name: getattr(self, name) for name in ("warmup_steps", "hold_steps", "warmup_start", "start_step")}
        ends = {"initial_learning_rate": 1.0, "alpha": 1.0, "total_steps": max(self._before, 0) + 1, "dtype": "float64"}
        curves.rates(own | ends, np.zeros(0, np.int64))  # raises if an argument breaks a rule
        self._attributes = ops.as_attributes(own | ends) | {"name": "Factor"}

    def __call__(self, step: Any = None) -> Any:
        """The learning rate at `step`, which is as in `WarmupCosineDecay.__call__`, with the same errors.

        Returns:
            A tensor of the shape of `step` and of the dtype of the schedule's rate. Without warmup, hold and
            `start_step`, it is whatever the schedule returned.

        Raises:
            TypeError: The schedule inside computes with the step in a way that an int64 tensor does not allow.
            ValueError: `step` is an array, and the schedule inside takes single steps only.
        """
        if step is None:
            raise self._without_step()
        _tracing.note(self)
        counted = as_step(step)
        # The key has the bound method, which equals only that of the same schedule, and the type of the step, because a
        # keras.Variable, a tf.Variable and a tensor give different products with a Python float.
        return ops.merged(lambda: self._rate(counted, step), step, (self._rate, type(step)), only_if_pure=True)

    __call__.autograph_info__ = Schedule.autograph_info__  # type: ignore[attr-defined]

    def _rate(self, counted, step):
        """The rate at a step. `counted` is `step` as int64; the schedule inside gets the dtype of `step`."""
        if not self._before and not self.start_step:
            return self._rate_inside(step, counted.shape)
        with tf.name_scope(self.name or type(self).__name__):
            counted = tf.convert_to_tensor(counted)
            begin = self.start_step + self._before
            # The steps since `begin`, clamped to 0 and to the greatest int64.
            begun = tf.maximum(counted, begin)
            done = (tf.minimum(begun, _LAST_STEP + begin) if begin < 0 else begun) - begin
            name = dtype_name(step) if hasattr(step, "dtype") else "int64"
            rate = self._rate_inside(tf.cast(done, name if "float" in name else "int64"), done.shape)
            if not self.warmup_steps:
                return rate
            rate = tf.convert_to_tensor(rate if hasattr(rate, "dtype") else np.float64(rate))
            dtype = rate.dtype.name if rate.dtype.is_floating else "float64"
            return ops.product(ops.warmup_decay(counted, self._attributes), rate, dtype)

    def _rate_inside(self, step, shape):
        """The rate of the schedule inside. If it fails, the error names what to change in that schedule."""
        try:
            return self.schedule(step)
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise TypeError(
                f"{type(self.schedule).__name__} uses the value of a tensor in a Python condition. Write tf.where or "
                f"tf.cond in its __call__: inside a LinearWarmup, AutoGraph does not convert it. The error was: {error}"
            ) from error
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            inner = type(self.schedule).__name__
            if tf.TensorShape(shape).rank != 0:
                raise ValueError(
                    f"{inner} failed at an array of steps: many schedules take one step at a time only. Call the "
                    "LinearWarmup with single steps, or tf.map_fn(schedule, steps, fn_output_signature=tf.float32). "
                    f"Received: step of shape {shape}"
                ) from error
            if isinstance(step, tf.Tensor) and step.dtype == tf.int64 and not isinstance(error, ValueError):
                raise TypeError(
                    f"{inner} failed at an int64 tensor. If it computes with the step as a float, begin its __call__ "
                    "with step = tf.cast(step, tf.float32): TensorFlow does not convert a tensor as Keras converts a "
                    f"keras.Variable. The error was: {error}"
                ) from error
            raise

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in a form that JSON can hold.

        The schedule inside is saved as its Keras saves it, and "keras" is the name of that Keras, or None for any.
        """
        config = {name: getattr(self, name) for name in self._arguments}
        keras, saved = serialized(self.schedule)
        return config | {"schedule": saved, "keras": keras}

    @classmethod
    def from_config(cls: type[_S], config: dict[str, Any]) -> _S:
        """Makes a schedule from the dict that `get_config` returned.

        If the schedule inside is of your own class, register the class with its Keras first.
        """
        arguments = dict(config)
        keras = arguments.pop("keras", None)
        if isinstance(arguments["schedule"], dict):
            arguments["schedule"] = deserialized(arguments["schedule"], keras)
        return cls(**arguments)

    def __repr__(self) -> str:
        """The call that makes this schedule."""
        return self._as_call({name: getattr(self, name) for name in self._arguments})


def _check_is_schedule(value):
    """Raises if `value` is not a schedule of an imported Keras. The error says what to write instead."""
    bases = (Schedule, *(base for _, base in in_each_keras(SCHEDULE)))
    if isinstance(value, bases):
        return
    if isinstance(value, type) and issubclass(value, bases):
        fix = f"Make an instance: {value.__name__}(...)."
    elif isinstance(value, numbers.Real) or hasattr(value, "dtype"):
        fix = "For a warmup to a constant rate in W steps, use lrops.WarmupCosineDecay(rate, W, W + 1, alpha=1.0)."
    elif hasattr(value, "apply_gradients") or hasattr(value, "apply"):
        fix = "Pass the optimizer's schedule to LinearWarmup, and pass the LinearWarmup to the optimizer."
    elif callable(value):
        fix = "Make it the __call__(self, step) of a subclass of keras.optimizers.schedules.LearningRateSchedule."
    else:
        fix = "Make one, such as keras.optimizers.schedules.PolynomialDecay(...)."
    raise TypeError(
        f"schedule must be a LearningRateSchedule of Keras or of lrops. {fix} Received: schedule={shown(value)}"
    )
