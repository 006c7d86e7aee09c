"""The Keras learning rate schedules over the compiled ops."""

import dataclasses
import functools
import inspect
import numbers
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lrops import _hyperparameters, curves, ops, plotting
from lrops._arguments import as_hyperparameter, as_step, as_step_on_host, dtype_name
from lrops._keras import SCHEDULE, add_keras_bases, deserialized, in_each_keras, serialized

if TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule as _Base
else:

    class _Base:
        """What `Schedule` derives from before any Keras: see `add_keras_bases`."""


_LAST_STEP = 2**63 - 1
_NO_WARMUP = (
    "{} without warmup (warmup_steps=0): the first updates of an adaptive optimizer take the full rate "
    "while its moment estimates are still noise, which is the instability that warmup prevents. 500 steps are a good "
    "floor, also on small data. (Said once.)"
)


def _warn_without_warmup(name, stacklevel, _said=[]):  # noqa: B006  (one list for the process, as the name says)
    if not _said:
        _said.append(True)
        warnings.warn(_NO_WARMUP.format(name), UserWarning, stacklevel=stacklevel)


_ROUNDED_COUNT = (
    "{} was given the step as a float32, which holds no odd number above 2^24 = 16,777,216, and this curve goes on "
    "beyond that: from there on a step may be rounded to a neighbour. Pass optimizer.iterations as it is, an int64. "
    "(Said once.)"
)


def _warn_of_rounding(name, _said=[]):  # noqa: B006
    if not _said:
        _said.append(True)
        warnings.warn(_ROUNDED_COUNT.format(name), UserWarning, stacklevel=6)


def _add_keras_bases():
    """Makes the classes below schedules of every Keras in the process, which can then load what was saved."""
    schedules = (WarmupCosineDecay, WarmupDecay, WarmupInverseSqrt, WarmupCosineRestarts, LinearWarmup)
    add_keras_bases(Schedule, SCHEDULE, schedules)


_S = TypeVar("_S", bound="Schedule")
_W = TypeVar("_W", bound="LinearWarmup")


def is_evaluated_by_lrops(schedule: Any) -> bool:
    """Whether it is a curve of lrops, and no subclass with a `__call__` of its own."""
    return isinstance(schedule, Curve) and type(schedule).__call__ is Curve.__call__


def is_warmup(schedule: Any) -> bool:
    """Whether it is a `LinearWarmup`, and no subclass with a `__call__` of its own."""
    return isinstance(schedule, LinearWarmup) and type(schedule).__call__ is LinearWarmup.__call__


def schedules_traced_into(function: Any) -> set[Any] | None:
    """The schedules of lrops that were evaluated while the training function of a Keras was traced.

    Args:
        function: `model.train_function`: a `tf.function`, or a Python function that calls one.

    Returns:
        A set, or None if nothing has been traced yet.
    """
    functions = [function]
    if inspect.isfunction(function):  # that of Keras 3
        functions += inspect.getclosurevars(function).nonlocals.values()
    listed = [one._list_all_concrete_functions for one in functions if hasattr(one, "_list_all_concrete_functions")]
    graphs = [concrete.graph for concretes in listed for concrete in concretes()]
    return _schedules_in(graphs, set()) if graphs else None


def _schedules_in(graphs, seen):
    """The schedules that were evaluated in these graphs and in the functions that they call."""
    found = set()
    for graph in graphs:
        if id(graph) not in seen:
            seen.add(id(graph))
            found |= getattr(graph, "_lrops_schedules", set())
            called = (
                function.graph for function in getattr(graph, "_functions", {}).values() if hasattr(function, "graph")
            )
            found |= _schedules_in(called, seen)
    return found


class Schedule(_Base):
    """What the schedules of lrops share. A subclass is a dataclass of its hyper-parameters."""

    autograph_info__: ClassVar[dict[str, Any]] = {}  # TensorFlow's mark for what AutoGraph shall not convert
    start_step: int
    _to_change: ClassVar[str] = ""  # how else, in the error after an assignment
    # What the compiled op evaluates, and the same as its attributes.
    _evaluated: dict[str, Any]
    _attributes: dict[str, Any]

    def __post_init__(self) -> None:
        """Checks the types of the arguments."""
        _add_keras_bases()
        fields = sorted(dataclasses.fields(self), key=lambda field: bool(field.kw_only))
        for field in fields:  # in the order of the signature
            setattr(self, field.name, as_hyperparameter(field.name, field.type, getattr(self, field.name)))
        self._arguments = tuple(field.name for field in fields)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores what was pickled or copied, in a process that may have imported another Keras."""
        _add_keras_bases()
        self.__dict__.update(state)

    def _float32_count(self):
        """Warns if the op's curve still changes beyond the last step to which a float32 counts one by one."""
        begin = max(2**24, self.start_step)
        steps = [2**24, *(begin + 2**power for power in range(62))]
        if len(np.unique(curves.rates(self._evaluated | {"dtype": "float64"}, np.array(steps)))) > 1:
            _warn_of_rounding(type(self).__name__)

    def _note_graph(self):
        """While a function is traced: notes in its graph, and in those around it, that this schedule is part of it."""
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        graphs = []
        while getattr(graph, "building_function", False):
            graphs.append(graph)
            graph = graph.outer_graph
        if any(getattr(graph, "_lrops_inside", False) for graph in graphs):
            return  # it is part of a LinearWarmup, which has noted itself
        for graph in graphs:
            graph._lrops_schedules = {*getattr(graph, "_lrops_schedules", ()), self}

    def _without_step(self):
        return TypeError(  # an optimizer calls so what it does not know as a schedule
            f"{type(self).__name__} was called without a step. If an optimizer did so, its Keras was imported after "
            "lrops and in a way that lrops did not notice: import keras (or tf_keras) before lrops, in this process "
            "and in each worker."
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses another value for an argument: what has been traced would keep the old one."""
        if name in self.__dict__.get("_arguments", ()):
            raise AttributeError(
                f"{name} cannot be assigned, since what has been traced keeps the old one: make a new "
                f"{type(self).__name__} and compile again{self._to_change}. Received: {name}={value!r}"
            )
        super().__setattr__(name, value)

    def on_host(self, step: npt.ArrayLike) -> Any:
        """The learning rate at `step`, computed by TensorFlow on the CPU: no other device is waited for.

        Args:
            step: As in `__call__`; of a traced function no tensor.

        Returns:
            A NumPy array of the shape of `step`, or a NumPy number for a single step.
        """
        step = as_step_on_host(step)
        with tf.init_scope(), tf.device("CPU:0"):
            if not tf.executing_eagerly():
                raise RuntimeError(
                    f"the __call__ of {type(self).__name__} cannot be evaluated without eager execution, in a "
                    "graph for a session: call the schedule there instead of on_host."
                )
            return np.asarray(self(step))[()]

    def plot(self, path: str | os.PathLike[str] | None = None, ax: Any = None, log: bool = False) -> Any:
        """Draws the curve with its phases; `lrops.plotting.plot` draws several on one axis.

        >>> import lrops
        >>> ax = lrops.WarmupCosineDecay(1e-3, 1000, 100_000).plot()

        Args:
            path: A file to write, such as "rate.png".
            ax: matplotlib axes to draw on. Without them, a new figure.
            log: The rate on a logarithmic axis.

        Returns:
            The matplotlib axes.

        Raises:
            ImportError: matplotlib is not installed; it comes with `pip install 'lrops[plot]'`.
            OSError: `path` cannot be written.
        """
        return plotting.plot(self, path=path, ax=ax, log=log)

    @classmethod
    def from_config(cls: type[_S], config: dict[str, Any]) -> _S:
        """A schedule from what `get_config` gave; its arguments are checked as the constructor's are."""
        return cls(**config)


class Curve(Schedule, _hyperparameters.Hyperparameters):
    """What the curves of lrops share. A subclass names its op."""

    _constructors: ClassVar[int] = 1  # functions, one within the other
    _op: ClassVar[Callable[..., Any]]
    _to_change = "; for a peak that changes while training, give initial_learning_rate a tf.Variable and assign to that"
    name: str

    def __post_init__(self) -> None:
        """Checks the arguments, and prepares what an evaluation takes."""
        super().__post_init__()
        curve = self._checked_curve()
        # What the formula evaluates: if the peak is a variable, the curve of peak 1.
        self._tunable = not isinstance(self.initial_learning_rate, float)
        self._evaluated = curve | ({"initial_learning_rate": 1.0, "dtype": "float64"} if self._tunable else {})
        if self.warmup_steps == 0 and self.start_step <= 0:  # not for an optimizer that has its moments
            _warn_without_warmup(type(self).__name__, 3 + self._constructors)  # where it was called
        self._attributes = ops.as_attributes(self._evaluated) | {"name": self.name}

    def __call__(self, step: Any = None) -> tf.Tensor:
        """The learning rate at `step`.

        Args:
            step: Optimizer steps: a Python number, NumPy number or array, tensor, `tf.Variable` or `keras.Variable`, of
                any integer dtype but uint64, of any shape. Any int64 is good. Or of float32 or float64, which some
                optimizers cast their count to: in a graph that shows the cast, the integer before it is the step;
                elsewhere the value is, rounded down where it cannot be seen without waiting for a device. Warns once
                where a float32 may have been rounded: beyond step 2^24, unless the rate no longer changes there.

        Returns:
            A tensor of `dtype` and of the shape of `step`.

        Raises:
            TypeError: `step` is of another dtype, such as float16, which cannot count, or uint64.
            ValueError: a number does not fit in int64, or has a fraction that can be seen, or is NaN.
        """
        if step is None:
            raise self._without_step()
        self._note_graph()
        rate = self._op(as_step(step, self._float32_count), self._attributes)
        return ops.scaled(rate, self.initial_learning_rate, self.dtype) if self._tunable else rate

    # AutoGraph has nothing to convert here, and warns if it finds no sources, as in a frozen program. The mark is what
    # tf.autograph.experimental.do_not_convert sets, without a wrapper that each eager call would pay for.
    __call__.autograph_info__ = Schedule.autograph_info__  # type: ignore[attr-defined]

    def on_host(self, step: npt.ArrayLike) -> Any:
        """The learning rate at `step`, computed by the CPU without TensorFlow: no device is waited for.

        A peak in a variable is read from its device, which is waited for. A subclass with a `__call__` of its own is
        evaluated by that, in TensorFlow.

        >>> import lrops
        >>> float(lrops.WarmupCosineDecay(1e-3, 1000, 100_000).on_host(500))
        0.0005000000237487257

        Args:
            step: As in `__call__`.

        Returns:
            A NumPy array of `dtype` and of the shape of `step`, or a NumPy number for a single step, with the bits that
            `__call__` gives.

        Raises:
            TypeError: `step` is of another dtype, such as float16, which cannot count, or uint64.
            ValueError: a number does not fit in int64, or has a fraction, or is NaN.
        """
        return self._on_host(step, self.initial_learning_rate)

    def _on_host(self, step, peak):
        """`on_host`; `peak` is the variable, or its number as it was read before."""
        if not is_evaluated_by_lrops(self):  # a subclass, whose `__call__` says what its rate is
            return super().on_host(step)
        rate = curves.rates(self._evaluated, as_step_on_host(step))
        return (ops.scaled_on_host(rate, peak, self.dtype) if self._tunable else rate)[()]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain numbers and strings that JSON holds; of a variable, its number.

        Warns if the variable holds an invalid peak, such as 0.
        """
        try:
            curve = self._checked_curve()
        except ValueError as error:
            curve = self._curve()
            warnings.warn(
                f"the variable of initial_learning_rate holds {curve['initial_learning_rate']}: a model saved with it "
                f"can be loaded with compile=False only. Assign another number first: {error}",
                UserWarning,
                stacklevel=2,
            )
        return curve | {"name": self.name}

    def _curve(self):
        """What the formula takes: all arguments but the name; of a variable, its number."""
        curve = {name: getattr(self, name) for name in self._arguments if name != "name"}
        return curve | {"initial_learning_rate": ops.value_on_host(self.initial_learning_rate)}

    def _checked_curve(self):
        curve = self._curve()
        curves.rates(curve, np.zeros(0, np.int64))  # refuses what breaks a rule
        return curve

    def __repr__(self) -> str:
        """The call that makes this schedule."""
        return _as_call(self, self.get_config())


def _as_call(schedule, arguments):
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"lrops.{type(schedule).__name__}({written})"


@dataclasses.dataclass(eq=False, repr=False)
class WarmupCosineDecay(Curve, _hyperparameters.CosineDecay):
    """Linear warmup, a hold at the peak, cosine decay to a floor: one op in the graph for each evaluation.

    With p = initial_learning_rate, W = warmup_steps, H = hold_steps, T = total_steps, and
    s = step - start_step clamped to [0, T]:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)                        where s < W
           = p                                                                      where W <= s <= W + H
           = p * (alpha + (1 - alpha) * sin(pi/2 * (T - s) / (T - W - H))**2)       where s > W + H

    which is the usual `0.5 * (1 + cos(...))` without its cancellation, and stays at p * alpha after T. The result is
    the true value rounded once to `dtype`, with the same bits in eager mode, in `tf.function`, and under XLA. It is a
    pure function of the step: resuming a run or adding replicas changes nothing. One step is one
    `optimizer.apply`, whatever the number of replicas.

    In a Keras 3 or tf_keras optimizer it goes wherever a schedule goes:

    >>> import keras
    >>> import lrops
    >>> schedule = lrops.WarmupCosineDecay(1e-3, warmup_steps=1000, total_steps=100_000)
    >>> optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1)
    >>> [float(rate) for rate in schedule([0, 500, 1000, 100_000])]
    [0.0, 0.0005000000237487257, 0.0010000000474974513, 9.999999974752427e-07]

    Args:
        initial_learning_rate: The peak, a finite number above 0: what Keras' `CosineDecay` calls `warmup_target`. Or a
            floating scalar `tf.Variable` or `keras.Variable` that holds it: assign to it, and the next step takes the
            new peak, without a new trace. An evaluation is then five nodes, gradients flow to the variable, and its
            number is what a saved config holds. A checkpoint holds the variable only where you put it there.
        warmup_steps: Steps from the first value to the peak, at least 0. 0 warns, unless start_step is above 0.
        total_steps: The step at which the floor is reached, at most 2**62. Unlike Keras' `decay_steps` it counts
            warmup and hold, and it must be greater than both together.
        alpha: The floor as a ratio of the peak, in [0, 1]: the last rate is initial_learning_rate * alpha.
        hold_steps: Steps to stay at the peak, at least 0.
        warmup_start: The first value as a ratio of the peak, in [0, 1].
        start_step: The step at which the curve begins, for a new schedule on an optimizer that has already counted.
            With -1 the first update already takes p / W and the last one, T - 1, the floor.
        dtype: Of the rate: "float32", "float16", "bfloat16" or "float64".
        name: Of the op in the graph.

    Raises:
        TypeError: an argument is of the wrong type, such as 1000.0 or True for a number of steps.
        ValueError: an argument breaks one of the rules above. The message names it, the rule and the value.
    """

    _: dataclasses.KW_ONLY
    name: str = "WarmupCosineDecay"

    _op = staticmethod(ops.warmup_decay)


@dataclasses.dataclass(eq=False, repr=False)
class WarmupDecay(Curve, _hyperparameters.Decay):
    """Linear warmup, a hold at the peak, and a decay to a floor along a cosine, a line or a square root.

    With p = initial_learning_rate, W = warmup_steps, H = hold_steps, T = total_steps, and
    s = step - start_step clamped to [0, T]:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)                        where s < W
           = p                                                                      where W <= s <= W + H
           = p * (alpha + (1 - alpha) * g(u)),  u = (T - s) / (T - W - H)           where s > W + H

    | decay | g(u) | Source |
    |---|---|---|
    | "cosine" | sin(pi/2 * u)**2 | Loshchilov and Hutter 2017 (arXiv 1608.03983): `WarmupCosineDecay` |
    | "linear" | u | Devlin et al. 2019 (BERT, arXiv 1810.04805); Defazio et al. 2023 (arXiv 2310.07831) |
    | "minus_sqrt" | 1 - sqrt(1 - u) | the cooldown of Hägele et al. 2024 (arXiv 2405.18392), behind a long hold |

    Devices, modes and exactness are those of `WarmupCosineDecay`.

    >>> import lrops
    >>> schedule = lrops.WarmupDecay(1e-3, warmup_steps=1000, total_steps=100_000, alpha=0.0, decay="linear")
    >>> [float(rate) for rate in schedule([0, 500, 1000, 50_500, 100_000])]
    [0.0, 0.0005000000237487257, 0.0010000000474974513, 0.0005000000237487257, 0.0]

    Warmup-stable-decay, with a cooldown of a fifth of the run:

    >>> wsd = lrops.WarmupDecay(1e-3, 1000, 100_000, alpha=0.0, decay="minus_sqrt", hold_steps=79_000)
    >>> [float(rate) for rate in wsd([1000, 80_000, 85_000, 100_000])]
    [0.0010000000474974513, 0.0010000000474974513, 0.0005000000237487257, 0.0]

    Args:
        initial_learning_rate: The peak, a finite number above 0, or a variable that holds it, as in
            `WarmupCosineDecay`.
        warmup_steps: Steps from the first value to the peak, at least 0. 0 warns, unless start_step is above 0.
        total_steps: The step at which the floor is reached, at most 2**62. It counts warmup and hold, and must be
            greater than both together.
        alpha: The floor as a ratio of the peak, in [0, 1]: the last rate is initial_learning_rate * alpha.
        decay: "cosine", "linear" or "minus_sqrt".
        hold_steps: Steps to stay at the peak, at least 0.
        warmup_start: The first value as a ratio of the peak, in [0, 1].
        start_step: The step at which the curve begins.
        dtype: Of the rate: "float32", "float16", "bfloat16" or "float64".
        name: Of the op in the graph.

    Raises:
        TypeError: an argument is of the wrong type, such as 1000.0 or True for a number of steps.
        ValueError: an argument breaks one of the rules above. The message names it, the rule and the value.
    """

    _: dataclasses.KW_ONLY
    name: str = "WarmupDecay"

    _op = staticmethod(ops.warmup_decay)


@dataclasses.dataclass(eq=False, repr=False)
class WarmupInverseSqrt(Curve, _hyperparameters.InverseSqrt):
    """Linear warmup, a hold at the peak, then one over the square root of the step, without an end.

    The schedule of the Transformer (Vaswani et al. 2017, section 5.3, "Noam") and of T5. With
    p = initial_learning_rate, W = warmup_steps, H = hold_steps, N = timescale and s = step - start_step, at least 0:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)                        where s < W
           = p                                                                      where W <= s <= W + H
           = p * sqrt(N / (N + d)),  d = s - W - H                                  where s > W + H

    There is no last step and no floor: the rate is half the peak at d = 3 N, a tenth at d = 99 N. Devices, modes and
    exactness are those of `WarmupCosineDecay`.

    The Transformer's rate, d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5):

    >>> import lrops
    >>> d_model, warmup_steps = 512, 4000
    >>> schedule = lrops.WarmupInverseSqrt((d_model * warmup_steps) ** -0.5, warmup_steps)
    >>> [float(rate) for rate in schedule([0, 2000, 4000, 16_000])]
    [0.0, 0.0003493856347631663, 0.0006987712695263326, 0.0003493856347631663]

    Args:
        initial_learning_rate: The peak, a finite number above 0, or a variable that holds it, as in
            `WarmupCosineDecay`.
        warmup_steps: Steps from the first value to the peak, at least 0. 0 warns, unless start_step is above 0.
        timescale: N, at least 1 and at most 2**62: how many steps after the peak the rate is the peak / sqrt(2). None
            for `warmup_steps`, which then must be at least 1.
        hold_steps: Steps to stay at the peak, at least 0.
        warmup_start: The first value as a ratio of the peak, in [0, 1].
        start_step: The step at which the curve begins.
        dtype: Of the rate: "float32", "float16", "bfloat16" or "float64".
        name: Of the op in the graph.

    Raises:
        TypeError: an argument is of the wrong type, such as 1000.0 or True for a number of steps; or `total_steps` or
            `alpha` was given.
        ValueError: an argument breaks one of the rules above. The message names it, the rule and the value.
    """

    _: dataclasses.KW_ONLY
    name: str = "WarmupInverseSqrt"

    _constructors = 2  # see _without_end
    _op = staticmethod(ops.warmup_inverse_sqrt)


def _without_end(init):
    """The constructor of `WarmupInverseSqrt`, with a sentence for the arguments that every other curve has."""

    @functools.wraps(init)
    def refusing(self, *args, **kwargs):
        given = {name: kwargs[name] for name in ("total_steps", "alpha") if name in kwargs}
        given |= dict(zip(("total_steps", "alpha"), args[2:], strict=False))
        if given:
            received = ", ".join(f"{name}={value!r}" for name, value in given.items())
            raise TypeError(
                "WarmupInverseSqrt has neither an end nor a floor: leave total_steps and alpha out, or take "
                f"WarmupDecay, which has both. Received: {received}"
            )
        init(self, *args, **kwargs)

    return refusing


WarmupInverseSqrt.__init__ = _without_end(WarmupInverseSqrt.__init__)  # type: ignore[method-assign]


@dataclasses.dataclass(eq=False, repr=False)
class WarmupCosineRestarts(Curve, _hyperparameters.Restarts):
    """Linear warmup, then cycles of cosine decay, each starting again at a peak: SGDR, one op for each evaluation.

    Keras' `CosineDecayRestarts` behind a warmup (Loshchilov and Hutter, 2017), with restarts at exact steps. With
    p = initial_learning_rate, W = warmup_steps and s = step - start_step, clamped to at least 0:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)                        where s < W
           = p * (alpha + (1 - alpha) * m_mul**i * cos(pi/2 * d / L)**2)            in cycle i = 0, 1, 2, ...
           = p * alpha                                                              after the last cycle

    Cycle i has L = first_decay_steps * t_mul**i steps, rounded to the nearest integer, ties to even, and d of them are
    done; the first begins at W. Devices, modes and exactness are those of `WarmupCosineDecay`.

    >>> import lrops
    >>> schedule = lrops.WarmupCosineRestarts(1e-3, warmup_steps=500, first_decay_steps=1000, m_mul=0.5)
    >>> [float(rate) for rate in schedule([500, 1499, 1500, 3500])]  # cycles begin at steps 500, 1500, 3500, 7500, ...
    [0.0010000000474974513, 1.0024649554907228e-06, 0.0005005000275559723, 0.0002507499884814024]

    Args:
        initial_learning_rate: The peak of the first cycle, a finite number above 0, or a variable that holds it, as
            in `WarmupCosineDecay`.
        warmup_steps: Steps from the first value to the peak, at least 0. 0 warns, unless start_step is above 0.
        first_decay_steps: Steps of the first cycle, at least 1.
        t_mul: The ratio of a cycle's length to that of the one before, a finite number, at least 1.
        m_mul: The ratio of a cycle's height above the floor to that of the one before, in (0, 1].
        alpha: The floor as a ratio of the peak, in [0, 1]: every cycle ends at initial_learning_rate * alpha.
        cycles: Their number, at least 1; after the last the rate stays at the floor. None for as many as end within
            2**62 steps. It must be at most 64, also where it is None: with t_mul=2 that is always so, and closer
            to 1 a number has to be given. Where t_mul=1 and m_mul=1 any number will do, and None.
        warmup_start: The first value as a ratio of the peak, in [0, 1].
        start_step: The step at which the curve begins.
        dtype: Of the rate: "float32", "float16", "bfloat16" or "float64".
        name: Of the op in the graph.

    Raises:
        TypeError: an argument is of the wrong type, such as 1000.0 or True for a number of steps.
        ValueError: an argument breaks one of the rules above, or the last cycle does not end within 2**62 steps of
            start_step. The message names it, the rule and the value.
    """

    _: dataclasses.KW_ONLY
    name: str = "WarmupCosineRestarts"

    _op = staticmethod(ops.warmup_cosine_restarts)


@dataclasses.dataclass(eq=False, repr=False)
class LinearWarmup(Schedule, _hyperparameters.Warmup):
    """Any Keras schedule behind a linear warmup and a hold, evaluated once a step.

    The warmup of Goyal et al. 2017 (arXiv 1706.02677) and of the TensorFlow Model Garden's `LinearWarmup`. With
    W = warmup_steps, H = hold_steps and s = step - start_step:

        lr = schedule(0) * (warmup_start + (1 - warmup_start) * s / W)              where s < W
           = schedule(0)                                                            where W <= s <= W + H
           = schedule(s - W - H)                                                    where s > W + H

    Before start_step the rate is the first one. From W on it is the schedule's own, bit for bit; in the warmup the
    product is rounded to float64, and then to the dtype of the schedule's rate.

    >>> import keras
    >>> import lrops
    >>> decay = keras.optimizers.schedules.PolynomialDecay(1e-3, decay_steps=100_000, end_learning_rate=0.0)
    >>> schedule = lrops.LinearWarmup(decay, warmup_steps=1000)
    >>> optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1)
    >>> [float(schedule(step)) for step in (0, 500, 1000, 51_000)]
    [0.0, 0.0005000000237487257, 0.0010000000474974513, 0.0005000000237487257]

    Keras 3 evaluates a schedule anew for each variable that has weight decay. In a `tf.function`, and so in `fit`, this
    one is evaluated once a step if its operations are pure: if they read no variable but the step and draw, print and
    assert nothing. Otherwise, and while a `tf.GradientTape` records, it is evaluated as often as Keras asks. What the
    schedule does in Python, such as counting its calls, happens once for all merged evaluations. With `warmup_steps=0`
    and nothing else this is all that happens: the schedule gets the optimizer's own step and its result is returned as
    it is.

    Args:
        schedule: A `LearningRateSchedule` of Keras 3 or tf_keras: one of theirs, of lrops, or your own. It is called
            with an int64 tensor, or one of the floating dtype in which the step came, as tf_keras' legacy optimizers
            pass it; with the step as it came if nothing is before the schedule. It may return a tensor, a NumPy number,
            or a Python number; an integer or a Python number counts as a float64.
        warmup_steps: Steps from the first value to schedule(0), at least 0.
        warmup_start: The first value as a ratio of schedule(0), in [0, 1].
        hold_steps: Steps to stay at schedule(0), at least 0. With the warmup they are below 2**62.
        start_step: The step at which the warmup begins, for an optimizer that has already counted.
        name: Of the operations in the graph; None for "LinearWarmup".

    Raises:
        TypeError: `schedule` is no schedule, or an argument is of the wrong type, such as 1000.0 for a number of steps.
        ValueError: an argument breaks one of the rules above. The message names it, the rule and the value.
    """

    _: dataclasses.KW_ONLY
    name: str | None = None

    def __post_init__(self) -> None:
        """Checks the arguments, and prepares what an evaluation takes."""
        _check_is_schedule(self.schedule)
        super().__post_init__()
        self._before = self.warmup_steps + self.hold_steps
        if self._before >= 2**62:
            raise ValueError(
                "warmup_steps + hold_steps must be below 2^62. "
                f"Received: warmup_steps={self.warmup_steps}, hold_steps={self.hold_steps}"
            )
        # The warmup as a factor: a curve that ends at its peak, 1, and stays there.
        own = {name: getattr(self, name) for name in ("warmup_steps", "hold_steps", "warmup_start", "start_step")}
        ends = {"initial_learning_rate": 1.0, "alpha": 1.0, "total_steps": max(self._before, 0) + 1, "dtype": "float64"}
        self._evaluated = own | ends
        curves.rates(self._evaluated, np.zeros(0, np.int64))  # refuses what breaks a rule
        self._attributes = ops.as_attributes(self._evaluated) | {"name": "Factor"}

    def __call__(self, step: Any = None) -> Any:
        """The learning rate at `step`.

        Args:
            step: As any schedule of lrops takes it: a Python number, NumPy number or array, tensor or variable that
                counts optimizer steps. Of any shape, if the schedule inside takes it.

        Returns:
            A tensor of the shape of `step`, of the dtype of the schedule's rate. Where nothing is before the schedule,
            what it returned.

        Raises:
            TypeError: `step` is of another dtype, such as float16, which cannot count, or uint64; or the schedule
                computes with the step in a way that an int64 tensor does not allow.
            ValueError: a number does not fit in int64, or has a fraction that can be seen, or is NaN; or the schedule
                takes single steps only.
        """
        if step is None:
            raise self._without_step()
        self._note_graph()
        counted = as_step(step, self._float32_count)
        # The key keeps this schedule alive by a bound method, which has the identity of its object. A keras.Variable,
        # a tf.Variable and a tensor differ in what becomes of their product with a Python float.
        # A floating tensor is what the schedule gets, and not the integer that it was cast from.
        itself = [step.ref()] if isinstance(step, tf.Tensor) and step.dtype.is_floating else []
        key = (self._rate, type(step), _dtype_for(step), *itself)
        return ops.merged_if_pure(lambda: self._rate(counted, step), counted, key)

    __call__.autograph_info__ = Schedule.autograph_info__  # type: ignore[attr-defined]

    def _rate(self, counted, step):
        """The rate at `counted`, which is `step` as `as_step` gives it; the schedule gets the dtype of `step`."""
        if not self._before and not self.start_step:
            return self._evaluate(step, counted.shape)
        with tf.name_scope(self.name or type(self).__name__):
            counted = tf.convert_to_tensor(counted)
            begin = self.start_step + self._before
            # 0 before `begin`, and the greatest int64 where the difference is greater.
            begun = tf.maximum(counted, begin)
            done = (tf.minimum(begun, _LAST_STEP + begin) if begin < 0 else begun) - begin
            rate = self._evaluate(tf.cast(done, _dtype_for(step)), done.shape)
            if not self.warmup_steps:
                return rate
            rate = tf.convert_to_tensor(rate if hasattr(rate, "dtype") else np.float64(rate))
            dtype = rate.dtype.name if rate.dtype.is_floating else "float64"
            return ops.product(ops.warmup_decay(counted, self._attributes), rate, dtype)

    def _evaluate(self, step, shape):
        """The rate of the schedule inside."""
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        inside = getattr(graph, "_lrops_inside", False)
        try:
            if graph is not None:
                graph._lrops_inside = True
            return self.schedule(step)
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise TypeError(
                f"{type(self.schedule).__name__} decides in Python by the value of a tensor. Write tf.where or tf.cond "
                f"in its __call__: behind a LinearWarmup, AutoGraph does not convert it. It said: {error}"
            ) from error
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            inner = type(self.schedule).__name__
            if tf.TensorShape(shape).rank != 0:
                raise ValueError(
                    f"{inner} failed at an array of steps; many schedules take one step at a time only. Call "
                    "LinearWarmup with each step, or tf.map_fn(schedule, steps, fn_output_signature=tf.float32). "
                    f"Received: step of shape {shape}"
                ) from error
            if isinstance(step, tf.Tensor) and step.dtype == tf.int64 and not isinstance(error, ValueError):
                raise TypeError(
                    f"{inner} failed at an int64 tensor. If it computes with the step as a float, begin its __call__ "
                    "with step = tf.cast(step, tf.float32): TensorFlow converts no tensor by itself, as a "
                    f"keras.Variable is. It said: {error}"
                ) from error
            raise
        finally:
            if graph is not None:
                graph._lrops_inside = inside

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON holds them; of the schedule, its class and its config, as Keras saves it.

        Beside them "keras", the name of the Keras that `from_config` makes the schedule with; None for any.
        """
        config = {name: getattr(self, name) for name in self._arguments}
        keras, saved = serialized(self.schedule, _lrops_class)
        return config | {"schedule": saved, "keras": keras}

    @classmethod
    def from_config(cls: type[_W], config: dict[str, Any]) -> _W:
        """A schedule from what `get_config` gave; a class of yours inside must be registered with its Keras."""
        arguments = dict(config)
        keras = arguments.pop("keras", None)
        if isinstance(arguments["schedule"], dict):
            arguments["schedule"] = deserialized(arguments["schedule"], keras, _lrops_class)
        return cls(**arguments)

    def __repr__(self) -> str:
        """The call that makes this schedule."""
        return _as_call(self, {name: getattr(self, name) for name in self._arguments})


def _dtype_for(step):
    """The dtype in which a schedule inside gets its step, if the one around it got this."""
    name = dtype_name(step) if hasattr(step, "dtype") else "int64"
    return name if "float" in name else "int64"


def _lrops_class(name):
    """The class of lrops of this name, or None."""
    found = globals().get(name)
    return found if isinstance(found, type) and issubclass(found, Schedule) else None


def _check_is_schedule(value):
    """Refuses what is no schedule of an imported Keras, with the cure for what it is."""
    bases = (Schedule, *(base for _, base in in_each_keras(SCHEDULE)))
    if isinstance(value, bases):
        return
    if isinstance(value, type) and issubclass(value, bases):
        cure = f"Make an instance: {value.__name__}(...)."
    elif isinstance(value, numbers.Real) or hasattr(value, "dtype"):
        cure = "For a warmup to a constant rate in W steps, write lrops.WarmupCosineDecay(rate, W, W + 1, alpha=1.0)."
    elif hasattr(value, "apply_gradients") or hasattr(value, "apply"):
        cure = "Give LinearWarmup the optimizer's schedule, and the optimizer the LinearWarmup."
    elif callable(value):
        cure = "Make it the __call__(self, step) of a subclass of keras.optimizers.schedules.LearningRateSchedule."
    else:
        cure = "Make one, such as keras.optimizers.schedules.PolynomialDecay(...)."
    raise TypeError(
        f"schedule must be a LearningRateSchedule of Keras or of lrops. {cure} Received: schedule={value!r}"
    )


_add_keras_bases()
