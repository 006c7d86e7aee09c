"""The Keras learning rate schedules of lrops. Compiled ops compute their rates; _schedule.py evaluates the ops."""

import dataclasses

from lrops import _hyperparameters, ops
from lrops._keras import SCHEDULE, add_keras_bases
from lrops._schedule import CurveSchedule, Schedule, WarmupOfSchedule


@dataclasses.dataclass(eq=False, repr=False)
class WarmupCosineDecay(CurveSchedule, _hyperparameters.CosineDecayArguments):
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
        warmup_steps: Steps from the first rate to the peak, at least 0.
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
class WarmupDecay(CurveSchedule, _hyperparameters.DecayArguments):
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

    The other arguments, the errors and the exactness are those of `WarmupCosineDecay`.

    Args:
        decay: The shape of the decay: "cosine", "linear" or "minus_sqrt".

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
class WarmupInverseSqrt(CurveSchedule, _hyperparameters.InverseSqrtArguments):
    """Linear warmup, a hold at the peak, then a decay with one over the square root of the step. It has no end.

    With p = `initial_learning_rate`, W = `warmup_steps`, H = `hold_steps`, N = `timescale` and
    s = step - `start_step`, at least 0:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)  if s < W
           = p                                                if W <= s <= W + H
           = p * sqrt(N / (N + d)),  d = s - W - H            if s > W + H

    There is no last step and no floor, so the schedule takes no `total_steps` and no `alpha`. The rate is half the peak
    at d = 3 N, and a tenth of the peak at d = 99 N.

    Source: the Transformer, Vaswani et al. 2017 (arXiv 1706.03762), section 5.3, also called "Noam"; T5 uses it too.

    The other arguments, the errors and the exactness are those of `WarmupCosineDecay`.

    Args:
        timescale: N, at least 1 and at most `2**62`. N steps after the peak, the rate is the peak / sqrt(2). None means
            `warmup_steps`, which then must be at least 1.

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


@dataclasses.dataclass(eq=False, repr=False)
class WarmupCosineRestarts(CurveSchedule, _hyperparameters.RestartsArguments):
    """Linear warmup, then cycles of cosine decay that each restart at a peak (SGDR).

    It is Keras' `CosineDecayRestarts` after a warmup, with restarts at exact steps. With p = `initial_learning_rate`,
    W = `warmup_steps` and s = step - `start_step`, at least 0:

        lr = p * (warmup_start + (1 - warmup_start) * s / W)              if s < W
           = p * (alpha + (1 - alpha) * m_mul**i * cos(pi/2 * d / L)**2)  in cycle i = 0, 1, 2, ...
           = p * alpha                                                    after the last cycle

    Cycle 0 begins at s = W. Cycle i has L = `first_decay_steps * t_mul**i` steps, rounded to the nearest integer (ties
    to even), and d is the number of steps since the cycle began.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), with the warmup of Goyal et al. 2017 (arXiv 1706.02677).

    The other arguments, the errors and the exactness are those of `WarmupCosineDecay`. The last cycle must end within
    `2**62` steps of `start_step`.

    Args:
        first_decay_steps: Steps of the first cycle, at least 1.
        t_mul: The length of a cycle divided by that of the one before: a finite number, at least 1.
        m_mul: The height of a cycle above the floor divided by that of the one before, in (0, 1].
        alpha: The floor divided by the peak, in [0, 1]. Every cycle ends at the floor.
        cycles: The number of cycles, at least 1. After the last one the rate stays at the floor. None means as many as
            end within `2**62` steps. At most 64 cycles are possible, so a `t_mul` close to 1 needs a number here. With
            `t_mul=1` and `m_mul=1` there is no such limit. `t_mul=2` always stays below it.

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
class LinearWarmup(WarmupOfSchedule):
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
    schedule, such as a counter of its calls, runs once for all merged evaluations. With `warmup_steps=0`,
    `hold_steps=0` and `start_step=0`, merging is all that it does: step and result are passed on as they are.

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


add_keras_bases(
    Schedule, SCHEDULE, (WarmupCosineDecay, WarmupDecay, WarmupInverseSqrt, WarmupCosineRestarts, LinearWarmup)
)
