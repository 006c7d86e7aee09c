"""The Keras learning rate schedules of lrops. The compiled ops compute their rates."""

import dataclasses
import functools
import inspect
import numbers
import os
import sys
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
        """The first base of `Schedule`. `add_keras_bases` adds those of Keras."""


_LAST_STEP = 2**63 - 1
_NO_WARMUP = (
    "{} without warmup (warmup_steps=0): an adaptive optimizer takes its first updates at the full rate, while its "
    "moment estimates are still noise, and training may diverge. {} (Shown once.)"
)


def _usual_warmup(curve):
    """The sentence that says how long a usual warmup is, for the hyper-parameters of a curve."""
    for whole, steps in (("run", "total_steps"), ("first cycle", "first_decay_steps")):
        if steps in curve:
            least, most = (max(1, round(curve[steps] * part)) for part in (0.05, 0.1))
            usual = f"A usual warmup is 5-10 % of the {whole}"
            if most + curve.get("hold_steps", 0) >= curve.get("total_steps", 2**63):  # too long for this curve
                return f"{usual}."
            return f"{usual}, here warmup_steps={least}{f' to {most}' if most > least else ''}."
    return "The Transformer was trained with warmup_steps=4000."


def _warn_without_warmup(name, curve, _said=[]):  # noqa: B006  (one list for the process: it warns once)
    if _said:
        return
    _said.append(True)
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    # A filter by module sees the caller's module. Line 0 of "lrops" makes it one line of output: `warnings.warn` would
    # print the caller's source line too.
    message = _NO_WARMUP.format(name, _usual_warmup(curve))
    warnings.warn_explicit(message, UserWarning, "lrops", 0, frame.f_globals.get("__name__", "__main__"))


_ROUNDED_COUNT = (
    "{} was given the step as a float32, which holds no odd number above 2^24 = 16,777,216. This curve still changes "
    "beyond that step, so it may get a neighbouring step. Pass optimizer.iterations, an int64, as it is. (Shown once.)"
)


def _warn_of_rounding(name, _said=[]):  # noqa: B006
    if not _said:
        _said.append(True)
        warnings.warn(_ROUNDED_COUNT.format(name), UserWarning, stacklevel=6)


def _add_keras_bases():
    """Makes the classes below schedules of every Keras in the process, which can then load saved ones."""
    schedules = (WarmupCosineDecay, WarmupDecay, WarmupInverseSqrt, WarmupCosineRestarts, LinearWarmup)
    add_keras_bases(Schedule, SCHEDULE, schedules)


_S = TypeVar("_S", bound="Schedule")
_W = TypeVar("_W", bound="LinearWarmup")


def is_evaluated_by_lrops(schedule: Any) -> bool:
    """Whether it is a curve of lrops, and its class does not override `__call__`."""
    return isinstance(schedule, Curve) and type(schedule).__call__ is Curve.__call__


def is_warmup(schedule: Any) -> bool:
    """Whether it is a `LinearWarmup`, and its class does not override `__call__`."""
    return isinstance(schedule, LinearWarmup) and type(schedule).__call__ is LinearWarmup.__call__


def schedules_traced_into(function: Any) -> set[Any] | None:
    """The schedules of lrops that are compiled into a Keras model's training function.

    Args:
        function: `model.train_function`: a `tf.function`, or a Python function that calls one.

    Returns:
        A set of schedules, or None if nothing has been traced yet.
    """
    functions = [function]
    if inspect.isfunction(function):  # Keras 3
        functions += inspect.getclosurevars(function).nonlocals.values()
    listed = [one._list_all_concrete_functions for one in functions if hasattr(one, "_list_all_concrete_functions")]
    graphs = [concrete.graph for concretes in listed for concrete in concretes()]
    return _schedules_in(graphs, set()) if graphs else None


def _schedules_in(graphs, seen):
    """The schedules that are evaluated in these graphs and in the functions that they call."""
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
    """The base of all schedules of lrops. A subclass is a dataclass of its hyper-parameters."""

    autograph_info__: ClassVar[dict[str, Any]] = {}  # TensorFlow's mark for code that AutoGraph must not convert
    start_step: int
    _to_change: ClassVar[str] = ""  # a further cure in the error after an assignment
    # The hyper-parameters that the compiled op evaluates, and the op's attributes made from them.
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
        """Restores a pickled or copied schedule. This process may have imported another Keras."""
        _add_keras_bases()
        self.__dict__.update(state)

    def _float32_count(self):
        """Warns if the curve still changes beyond step 2^24, where a float32 no longer holds every step."""
        begin = max(2**24, self.start_step)
        steps = [2**24, *(begin + 2**power for power in range(62))]
        if len(np.unique(curves.rates(self._evaluated | {"dtype": "float64"}, np.array(steps)))) > 1:
            _warn_of_rounding(type(self).__name__)

    def _note_graph(self):
        """While a function is traced, notes this schedule in its graph and in the graphs around it.

        `schedules_traced_into` reads the notes.
        """
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        graphs = []
        while getattr(graph, "building_function", False):
            graphs.append(graph)
            graph = graph.outer_graph
        if any(getattr(graph, "_lrops_inside", False) for graph in graphs):
            return  # part of a LinearWarmup, which has noted itself
        for graph in graphs:
            graph._lrops_schedules = {*getattr(graph, "_lrops_schedules", ()), self}

    def _without_step(self):
        return TypeError(  # an optimizer calls a callable that is not its Keras' schedule without a step
            f"{type(self).__name__} was called without a step: pass one, such as schedule(optimizer.iterations). If an "
            "optimizer made the call, it does not know lrops: import keras (or tf_keras) before lrops, in this process "
            "and in each worker."
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Raises if a hyper-parameter is assigned: a traced function would keep the old value."""
        if name in self.__dict__.get("_arguments", ()):
            raise AttributeError(
                f"{name} cannot be assigned, because a traced function keeps the old value: make a new "
                f"{type(self).__name__} and call model.compile again{self._to_change}. Received: {name}={value!r}"
            )
        super().__setattr__(name, value)

    def on_host(self, step: npt.ArrayLike) -> Any:
        """The learning rate at `step`, computed by TensorFlow on the CPU. It does not wait for a GPU.

        Args:
            step: Optimizer steps, as in `__call__`. A tensor of a function that is being traced is refused.

        Returns:
            A NumPy array of the shape of `step`, or a NumPy number for a single step.

        Raises:
            TypeError: `step` cannot count, as in `__call__`, or it is a tensor without a known value.
            ValueError: A number does not fit in int64, has a fraction or is NaN.
            RuntimeError: TensorFlow does not execute eagerly.
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

        Args:
            path: A file to write, such as "rate.png".
            ax: The matplotlib axes to draw on. Without them, a new figure is made.
            log: Whether the axis of the rate is logarithmic.

        Returns:
            The matplotlib axes.

        Raises:
            ImportError: matplotlib is not installed. The cure is `pip install matplotlib`.
            OSError: `path` cannot be written.

        Examples:
            >>> import lrops
            >>> ax = lrops.WarmupCosineDecay(1e-3, 1000, 100_000).plot()
        """
        return plotting.plot(self, path=path, ax=ax, log=log)

    @classmethod
    def from_config(cls: type[_S], config: dict[str, Any]) -> _S:
        """Makes a schedule from the dict that `get_config` returned. The arguments are checked again."""
        return cls(**config)


class Curve(Schedule, _hyperparameters.Hyperparameters):
    """The base of the curves of lrops. A subclass names its op."""

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
        if self.warmup_steps == 0 and self.start_step <= 0:  # beyond 0, the optimizer has good moment estimates
            _warn_without_warmup(type(self).__name__, curve)
        self._attributes = ops.as_attributes(self._evaluated) | {"name": self.name}

    def __call__(self, step: Any = None) -> tf.Tensor:
        """The learning rate at `step`.

        A step counts optimizer updates. Some optimizers cast their count to float32 or float64. If the graph shows that
        cast, the step is the integer before it. Otherwise it is the value itself, and one that cannot be seen without
        waiting for a device is rounded down. A float32 beyond 2^24 may be a rounded count: a warning says so once,
        unless the rate no longer changes there.

        Args:
            step: A Python number, NumPy number or array, tensor, `tf.Variable` or `keras.Variable` of any shape. The
                dtype is any integer dtype except uint64, or float32 or float64 with whole numbers. Any int64 is valid,
                also below 0.

        Returns:
            A tensor of `dtype` and of the shape of `step`.

        Raises:
            TypeError: `step` has another dtype, such as uint64, or float16, which cannot count.
            ValueError: A number does not fit in int64, is NaN, or has a fraction and its value can be seen.
        """
        if step is None:
            raise self._without_step()
        self._note_graph()
        rate = self._op(as_step(step, self._float32_count), self._attributes)
        return ops.scaled(rate, self.initial_learning_rate, self.dtype) if self._tunable else rate

    # AutoGraph has nothing to convert here, and it warns in a frozen program, where it finds no sources. This mark is
    # the one that tf.autograph.experimental.do_not_convert sets; its wrapper would slow down each eager call.
    __call__.autograph_info__ = Schedule.autograph_info__  # type: ignore[attr-defined]

    def on_host(self, step: npt.ArrayLike) -> Any:
        """The learning rate at `step`, computed on the CPU without TensorFlow. It does not wait for a GPU.

        Two cases differ. A peak in a variable is read from the variable's device, so the call waits for that device. A
        subclass with its own `__call__` is evaluated in TensorFlow.

        Args:
            step: Optimizer steps, as in `__call__`. A tensor of a function that is being traced is refused.

        Returns:
            A NumPy array of `dtype` and of the shape of `step`, or a NumPy number for a single step. The bits are those
            of `__call__`.

        Raises:
            TypeError: `step` has another dtype, such as uint64, or float16, which cannot count.
            ValueError: A number does not fit in int64, has a fraction or is NaN.

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
        return _as_call(self, self.get_config())


def _as_call(schedule, arguments):
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"lrops.{type(schedule).__name__}({written})"


@dataclasses.dataclass(eq=False, repr=False)
class WarmupCosineDecay(Curve, _hyperparameters.CosineDecay):
    """Linear warmup, a hold at the peak, and a cosine decay to a floor. Each evaluation is one op in the graph.

    With p = `initial_learning_rate`, W = `warmup_steps`, H = `hold_steps`, T = `total_steps`, and
    s = step - `start_step`, clamped to [0, T]:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)                   if s < W
           = p                                                                 if W <= s <= W + H
           = p * (alpha + (1 - alpha) * sin(pi/2 * (T - s) / (T - W - H))**2)  if s > W + H

    The sine squared equals the usual `0.5 * (1 + cos(...))`, without its cancellation. From s = T on, the rate stays
    at `p * alpha`.

    The rate is the true value, rounded once to `dtype`. Its bits are the same in eager mode, in a `tf.function` and
    under XLA. It depends on the step only, so that a resumed run, or one with more replicas, gets the same rates. One
    step is one `optimizer.apply`, whatever the number of replicas.

    Source: linear warmup by Goyal et al. 2017 (arXiv 1706.02677), cosine decay by Loshchilov and Hutter 2017
    (arXiv 1608.03983).

    Args:
        initial_learning_rate: The peak rate, a finite number above 0. (Keras' `CosineDecay` calls it `warmup_target`.)
            It may also be a floating scalar `tf.Variable` or `keras.Variable` that holds the peak. After you assign to
            it, the next step uses the new peak, without retracing. An evaluation is then five nodes, and gradients flow
            to the variable. A saved config holds the variable's number; a checkpoint holds the variable only if you add
            it.
        warmup_steps: Steps from the first rate to the peak, at least 0. With 0 a warning is shown, unless `start_step`
            is above 0.
        total_steps: The step at which the rate reaches the floor, at most `2**62`. It includes warmup and hold, unlike
            Keras' `decay_steps`, and must be greater than `warmup_steps + hold_steps`.
        alpha: The floor divided by the peak, in [0, 1].
        hold_steps: Steps at the peak after the warmup, at least 0.
        warmup_start: The first rate divided by the peak, in [0, 1].
        start_step: The step at which the curve begins: the optimizer's count, for a new curve on an optimizer that has
            already counted. With -1, the first update (step 0) uses p / W instead of 0, and the last update (step
            T - 1) uses the floor.
        dtype: The dtype of the rate: "float32", "float16", "bfloat16" or "float64".
        name: The name of the op in the graph.

    Raises:
        TypeError: An argument has the wrong type, such as 1000.0 or True for a number of steps.
        ValueError: An argument breaks one of the rules above. The message gives the argument, the rule and the value.

    Examples:
        Use it in any optimizer of Keras 3 or tf_keras that takes a schedule:

        >>> import keras
        >>> import lrops
        >>> schedule = lrops.WarmupCosineDecay(1e-3, warmup_steps=1000, total_steps=100_000)
        >>> optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1)
        >>> [float(rate) for rate in schedule([0, 500, 1000, 100_000])]
        [0.0, 0.0005000000237487257, 0.0010000000474974513, 9.999999974752427e-07]
    """

    _: dataclasses.KW_ONLY
    name: str = "WarmupCosineDecay"

    _op = staticmethod(ops.warmup_decay)


@dataclasses.dataclass(eq=False, repr=False)
class WarmupDecay(Curve, _hyperparameters.Decay):
    """Linear warmup, a hold at the peak, and a decay to a floor along a cosine, a line or a square root.

    With p = `initial_learning_rate`, W = `warmup_steps`, H = `hold_steps`, T = `total_steps`, and
    s = step - `start_step`, clamped to [0, T]:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)               if s < W
           = p                                                             if W <= s <= W + H
           = p * (alpha + (1 - alpha) * g(u)),  u = (T - s) / (T - W - H)  if s > W + H

    | `decay` | g(u) | Source |
    |---|---|---|
    | `"cosine"` | `sin(pi/2 * u)**2` | Loshchilov and Hutter 2017 (arXiv 1608.03983); the same as `WarmupCosineDecay` |
    | `"linear"` | `u` | Devlin et al. 2019 (BERT, arXiv 1810.04805); Defazio et al. 2023 (arXiv 2310.07831) |
    | `"minus_sqrt"` | `1 - sqrt(1 - u)` | the cooldown of Hägele et al. 2024 (arXiv 2405.18392), after a long hold |

    The rates are as exact as those of `WarmupCosineDecay`, with the same bits in eager mode, in a `tf.function` and
    under XLA.

    Args:
        initial_learning_rate: The peak rate, a finite number above 0, or a variable that holds it, as in
            `WarmupCosineDecay`.
        warmup_steps: Steps from the first rate to the peak, at least 0. With 0 a warning is shown, unless `start_step`
            is above 0.
        total_steps: The step at which the rate reaches the floor, at most `2**62`. It includes warmup and hold, and
            must be greater than `warmup_steps + hold_steps`.
        alpha: The floor divided by the peak, in [0, 1].
        decay: The shape of the decay: "cosine", "linear" or "minus_sqrt".
        hold_steps: Steps at the peak after the warmup, at least 0.
        warmup_start: The first rate divided by the peak, in [0, 1].
        start_step: The step at which the curve begins.
        dtype: The dtype of the rate: "float32", "float16", "bfloat16" or "float64".
        name: The name of the op in the graph.

    Raises:
        TypeError: An argument has the wrong type, such as 1000.0 or True for a number of steps.
        ValueError: An argument breaks one of the rules above. The message gives the argument, the rule and the value.

    Examples:
        A line from the peak to 0:

        >>> import lrops
        >>> schedule = lrops.WarmupDecay(1e-3, warmup_steps=1000, total_steps=100_000, alpha=0.0, decay="linear")
        >>> [float(rate) for rate in schedule([0, 500, 1000, 50_500, 100_000])]
        [0.0, 0.0005000000237487257, 0.0010000000474974513, 0.0005000000237487257, 0.0]

        Warmup-stable-decay, with a cooldown over the last fifth of the run:

        >>> wsd = lrops.WarmupDecay(1e-3, 1000, 100_000, alpha=0.0, decay="minus_sqrt", hold_steps=79_000)
        >>> [float(rate) for rate in wsd([1000, 80_000, 85_000, 100_000])]
        [0.0010000000474974513, 0.0010000000474974513, 0.0005000000237487257, 0.0]
    """

    _: dataclasses.KW_ONLY
    name: str = "WarmupDecay"

    _op = staticmethod(ops.warmup_decay)


@dataclasses.dataclass(eq=False, repr=False)
class WarmupInverseSqrt(Curve, _hyperparameters.InverseSqrt):
    """Linear warmup, a hold at the peak, then a decay with one over the square root of the step. It has no end.

    With p = `initial_learning_rate`, W = `warmup_steps`, H = `hold_steps`, N = `timescale` and
    s = step - `start_step`, at least 0:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)  if s < W
           = p                                                if W <= s <= W + H
           = p * sqrt(N / (N + d)),  d = s - W - H            if s > W + H

    There is no last step and no floor. The rate is half the peak at d = 3 N, and a tenth of the peak at d = 99 N. The
    rates are as exact as those of `WarmupCosineDecay`, with the same bits in eager mode, in a `tf.function` and under
    XLA.

    Source: the Transformer, Vaswani et al. 2017 (arXiv 1706.03762), section 5.3, also called "Noam"; T5 uses it too.

    Args:
        initial_learning_rate: The peak rate, a finite number above 0, or a variable that holds it, as in
            `WarmupCosineDecay`.
        warmup_steps: Steps from the first rate to the peak, at least 0. With 0 a warning is shown, unless `start_step`
            is above 0.
        timescale: N, at least 1 and at most `2**62`. N steps after the peak, the rate is the peak / sqrt(2). None means
            `warmup_steps`, which then must be at least 1.
        hold_steps: Steps at the peak after the warmup, at least 0.
        warmup_start: The first rate divided by the peak, in [0, 1].
        start_step: The step at which the curve begins.
        dtype: The dtype of the rate: "float32", "float16", "bfloat16" or "float64".
        name: The name of the op in the graph.

    Raises:
        TypeError: An argument has the wrong type, such as 1000.0 or True for a number of steps; or `total_steps` or
            `alpha` was given.
        ValueError: An argument breaks one of the rules above. The message gives the argument, the rule and the value.

    Examples:
        The Transformer's rate, `d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)`:

        >>> import lrops
        >>> d_model, warmup_steps = 512, 4000
        >>> schedule = lrops.WarmupInverseSqrt((d_model * warmup_steps) ** -0.5, warmup_steps)
        >>> [float(rate) for rate in schedule([0, 2000, 4000, 16_000])]
        [0.0, 0.0003493856347631663, 0.0006987712695263326, 0.0003493856347631663]
    """

    _: dataclasses.KW_ONLY
    name: str = "WarmupInverseSqrt"

    _op = staticmethod(ops.warmup_inverse_sqrt)


def _without_end(init):
    """Wraps the constructor of `WarmupInverseSqrt`: it explains why it takes no `total_steps` and no `alpha`."""

    @functools.wraps(init)
    def refusing(self, *args, **kwargs):
        given = {name: kwargs[name] for name in ("total_steps", "alpha") if name in kwargs}
        given |= dict(zip(("total_steps", "alpha"), args[2:], strict=False))
        if given:
            received = ", ".join(f"{name}={value!r}" for name, value in given.items())
            raise TypeError(
                "WarmupInverseSqrt has no end and no floor: leave total_steps and alpha out, or use WarmupDecay, which "
                f"has both. Received: {received}"
            )
        init(self, *args, **kwargs)

    return refusing


WarmupInverseSqrt.__init__ = _without_end(WarmupInverseSqrt.__init__)  # type: ignore[method-assign]


@dataclasses.dataclass(eq=False, repr=False)
class WarmupCosineRestarts(Curve, _hyperparameters.Restarts):
    """Linear warmup, then cycles of cosine decay that each restart at a peak (SGDR).

    It is Keras' `CosineDecayRestarts` after a warmup, with restarts at exact steps. With p = `initial_learning_rate`,
    W = `warmup_steps` and s = step - `start_step`, at least 0:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)              if s < W
           = p * (alpha + (1 - alpha) * m_mul**i * cos(pi/2 * d / L)**2)  in cycle i = 0, 1, 2, ...
           = p * alpha                                                    after the last cycle

    Cycle 0 begins at s = W. Cycle i has L = `first_decay_steps * t_mul**i` steps, rounded to the nearest integer (ties
    to even), and d is the number of steps since the cycle began. The rates are as exact as those of
    `WarmupCosineDecay`, with the same bits in eager mode, in a `tf.function` and under XLA.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), with the warmup of Goyal et al. 2017 (arXiv 1706.02677).

    Args:
        initial_learning_rate: The peak rate of the first cycle, a finite number above 0, or a variable that holds it,
            as in `WarmupCosineDecay`.
        warmup_steps: Steps from the first rate to the peak, at least 0. With 0 a warning is shown, unless `start_step`
            is above 0.
        first_decay_steps: Steps of the first cycle, at least 1.
        t_mul: The length of a cycle divided by that of the one before: a finite number, at least 1.
        m_mul: The height of a cycle above the floor divided by that of the one before, in (0, 1].
        alpha: The floor divided by the peak, in [0, 1]. Every cycle ends at the floor.
        cycles: The number of cycles, at least 1. After the last one the rate stays at the floor. None means as many as
            end within `2**62` steps. At most 64 cycles are possible, so a `t_mul` close to 1 needs a number here. With
            `t_mul=1` and `m_mul=1` there is no such limit. `t_mul=2` always stays below it.
        warmup_start: The first rate divided by the peak, in [0, 1].
        start_step: The step at which the curve begins.
        dtype: The dtype of the rate: "float32", "float16", "bfloat16" or "float64".
        name: The name of the op in the graph.

    Raises:
        TypeError: An argument has the wrong type, such as 1000.0 or True for a number of steps.
        ValueError: An argument breaks one of the rules above, or the last cycle does not end within `2**62` steps of
            `start_step`. The message gives the argument, the rule and the value.

    Examples:
        >>> import lrops
        >>> schedule = lrops.WarmupCosineRestarts(1e-3, warmup_steps=500, first_decay_steps=1000, m_mul=0.5)
        >>> [float(rate) for rate in schedule([500, 1499, 1500, 3500])]  # cycles begin at 500, 1500, 3500, 7500, ...
        [0.0010000000474974513, 1.0024649554907228e-06, 0.0005005000275559723, 0.0002507499884814024]
    """

    _: dataclasses.KW_ONLY
    name: str = "WarmupCosineRestarts"

    _op = staticmethod(ops.warmup_cosine_restarts)


@dataclasses.dataclass(eq=False, repr=False)
class LinearWarmup(Schedule, _hyperparameters.Warmup):
    """A linear warmup and a hold in front of any Keras schedule. In a graph, a pure one is evaluated once a step.

    With W = `warmup_steps`, H = `hold_steps` and s = step - `start_step`:

        lr = schedule(0) * (warmup_start + (1 - warmup_start) * s / W)  if s < W
           = schedule(0)                                                if W <= s <= W + H
           = schedule(s - W - H)                                        if s > W + H

    Before `start_step` the rate is the first one. During the warmup, the product is rounded to float64 and then to the
    dtype of the schedule's rate. After the warmup, the rate is the schedule's own, bit for bit. Keras' own schedules
    compute in float32, so beyond step `2**24` their count of steps is inexact.

    In Keras 3, an optimizer with weight decay evaluates a schedule N + 1 times a step for N variables. (tf_keras
    evaluates it once.) In a `tf.function`, and so in `fit`, a `LinearWarmup` evaluates the schedule inside once a step
    if its operations are pure: they read no variable but the step, and they do not draw random numbers, print or
    assert. Otherwise, and while a `tf.GradientTape` records, it is evaluated as often as Keras asks. Python code in the
    schedule, such as a counter of its calls, runs once for all merged evaluations.

    With `warmup_steps=0`, `hold_steps=0` and `start_step=0`, merging is all that `LinearWarmup` does: the schedule gets
    the optimizer's step as it is, and its result is returned as it is.

    Source: Goyal et al. 2017 (arXiv 1706.02677); the TensorFlow Model Garden has a `LinearWarmup` too.

    Args:
        schedule: A `LearningRateSchedule` of Keras 3 or tf_keras: theirs, yours or one of lrops. It is called with an
            int64 tensor. If the step came as a float, such as from the legacy optimizers of tf_keras, it is called with
            a tensor of that dtype. It may return a tensor, a NumPy number or a Python number; an integer or a Python
            number is taken as a float64.
        warmup_steps: Steps from the first rate to `schedule(0)`, at least 0.
        warmup_start: The first rate divided by `schedule(0)`, in [0, 1].
        hold_steps: Steps at `schedule(0)` after the warmup, at least 0. `warmup_steps + hold_steps` must be below
            `2**62`.
        start_step: The step at which the warmup begins: the optimizer's count, for an optimizer that has already
            counted.
        name: The name of the operations in the graph; None means "LinearWarmup".

    Raises:
        TypeError: `schedule` is no schedule, or an argument has the wrong type, such as 1000.0 for a number of steps.
        ValueError: An argument breaks one of the rules above. The message gives the argument, the rule and the value.

    Examples:
        >>> import keras
        >>> import lrops
        >>> decay = keras.optimizers.schedules.PolynomialDecay(1e-3, decay_steps=100_000, end_learning_rate=0.0)
        >>> schedule = lrops.LinearWarmup(decay, warmup_steps=1000)
        >>> optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1)
        >>> [float(schedule(step)) for step in (0, 500, 1000, 51_000)]
        [0.0, 0.0005000000237487257, 0.0010000000474974513, 0.0005000000237487257]
    """

    _: dataclasses.KW_ONLY
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
        self._evaluated = own | ends
        curves.rates(self._evaluated, np.zeros(0, np.int64))  # raises if an argument breaks a rule
        self._attributes = ops.as_attributes(self._evaluated) | {"name": "Factor"}

    def __call__(self, step: Any = None) -> Any:
        """The learning rate at `step`.

        Args:
            step: Optimizer steps, as in `WarmupCosineDecay.__call__`. An array is possible if the schedule inside takes
                one.

        Returns:
            A tensor of the shape of `step` and of the dtype of the schedule's rate. Without warmup, hold and
            `start_step`, it is whatever the schedule returned.

        Raises:
            TypeError: `step` has another dtype, such as uint64, or float16, which cannot count; or the schedule
                computes with the step in a way that an int64 tensor does not allow.
            ValueError: A number does not fit in int64, is NaN, or has a fraction and its value can be seen; or the
                schedule takes single steps only.
        """
        if step is None:
            raise self._without_step()
        self._note_graph()
        counted = as_step(step, self._float32_count)
        # The key has the bound method, which keeps this schedule alive and equals only itself. It has the type of the
        # step, because a keras.Variable, a tf.Variable and a tensor give different products with a Python float. It has
        # the identity of a floating tensor, because the schedule gets that tensor, not the integer it was cast from.
        itself = [step.ref()] if isinstance(step, tf.Tensor) and step.dtype.is_floating else []
        key = (self._rate, type(step), _dtype_for(step), *itself)
        return ops.merged_if_pure(lambda: self._rate(counted, step), counted, key)

    __call__.autograph_info__ = Schedule.autograph_info__  # type: ignore[attr-defined]

    def _rate(self, counted, step):
        """The rate at a step. `counted` is `step` as int64; the schedule inside gets the dtype of `step`."""
        if not self._before and not self.start_step:
            return self._evaluate(step, counted.shape)
        with tf.name_scope(self.name or type(self).__name__):
            counted = tf.convert_to_tensor(counted)
            begin = self.start_step + self._before
            # The steps since `begin`, clamped to 0 and to the greatest int64.
            begun = tf.maximum(counted, begin)
            done = (tf.minimum(begun, _LAST_STEP + begin) if begin < 0 else begun) - begin
            rate = self._evaluate(tf.cast(done, _dtype_for(step)), done.shape)
            if not self.warmup_steps:
                return rate
            rate = tf.convert_to_tensor(rate if hasattr(rate, "dtype") else np.float64(rate))
            dtype = rate.dtype.name if rate.dtype.is_floating else "float64"
            return ops.product(ops.warmup_decay(counted, self._attributes), rate, dtype)

    def _evaluate(self, step, shape):
        """The rate of the schedule inside, or an error that says what that schedule must change."""
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        inside = getattr(graph, "_lrops_inside", False)
        try:
            if graph is not None:
                graph._lrops_inside = True
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
        finally:
            if graph is not None:
                graph._lrops_inside = inside

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in a form that JSON can hold.

        The schedule inside is saved as Keras saves it: its class and its config. An entry "keras" holds the name of the
        Keras that `from_config` must use, or None for any.
        """
        config = {name: getattr(self, name) for name in self._arguments}
        keras, saved = serialized(self.schedule, _lrops_class)
        return config | {"schedule": saved, "keras": keras}

    @classmethod
    def from_config(cls: type[_W], config: dict[str, Any]) -> _W:
        """Makes a schedule from the dict that `get_config` returned.

        If the schedule inside is of your own class, register the class with its Keras first.
        """
        arguments = dict(config)
        keras = arguments.pop("keras", None)
        if isinstance(arguments["schedule"], dict):
            arguments["schedule"] = deserialized(arguments["schedule"], keras, _lrops_class)
        return cls(**arguments)

    def __repr__(self) -> str:
        """The call that makes this schedule."""
        return _as_call(self, {name: getattr(self, name) for name in self._arguments})


def _dtype_for(step):
    """The dtype of the step for the schedule inside a LinearWarmup that was called with `step`."""
    name = dtype_name(step) if hasattr(step, "dtype") else "int64"
    return name if "float" in name else "int64"


def _lrops_class(name):
    """The schedule class of lrops with this name, or None."""
    found = globals().get(name)
    return found if isinstance(found, type) and issubclass(found, Schedule) else None


def _check_is_schedule(value):
    """Raises if `value` is not a schedule of an imported Keras. The error says what to write instead."""
    bases = (Schedule, *(base for _, base in in_each_keras(SCHEDULE)))
    if isinstance(value, bases):
        return
    if isinstance(value, type) and issubclass(value, bases):
        cure = f"Make an instance: {value.__name__}(...)."
    elif isinstance(value, numbers.Real) or hasattr(value, "dtype"):
        cure = "For a warmup to a constant rate in W steps, use lrops.WarmupCosineDecay(rate, W, W + 1, alpha=1.0)."
    elif hasattr(value, "apply_gradients") or hasattr(value, "apply"):
        cure = "Pass the optimizer's schedule to LinearWarmup, and pass the LinearWarmup to the optimizer."
    elif callable(value):
        cure = "Make it the __call__(self, step) of a subclass of keras.optimizers.schedules.LearningRateSchedule."
    else:
        cure = "Make one, such as keras.optimizers.schedules.PolynomialDecay(...)."
    raise TypeError(
        f"schedule must be a LearningRateSchedule of Keras or of lrops. {cure} Received: schedule={value!r}"
    )


_add_keras_bases()
