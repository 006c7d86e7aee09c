"""The arguments of each schedule, listed once: the schedules and the command line are made from these classes."""

import dataclasses
from typing import TYPE_CHECKING, Literal, TypeAlias

DtypeName = Literal["float16", "bfloat16", "float32", "float64"]
DecayName = Literal["cosine", "linear", "minus_sqrt"]

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
    import tf_keras

    Variable: TypeAlias = tf.Variable | keras.Variable
    KerasSchedule: TypeAlias = (
        keras.optimizers.schedules.LearningRateSchedule | tf_keras.optimizers.schedules.LearningRateSchedule
    )
else:

    class Variable:
        """A `tf.Variable` or a `keras.Variable`."""

    class KerasSchedule:
        """A `LearningRateSchedule` of Keras 3 or tf_keras."""


def _help(text: str) -> dict[str, str]:
    """The help text of a hyper-parameter on the command line."""
    return {"help": text}


@dataclasses.dataclass(eq=False, repr=False)
class CurveArguments:
    """The arguments that every curve has."""

    initial_learning_rate: float | Variable = dataclasses.field(metadata=_help("the peak"))
    warmup_steps: int = dataclasses.field(metadata=_help("steps from the first rate to the peak"))
    _: dataclasses.KW_ONLY
    warmup_start: float = dataclasses.field(default=0.0, metadata=_help("first rate / peak"))
    start_step: int = dataclasses.field(default=0, metadata=_help("step at which the curve begins"))
    dtype: DtypeName = dataclasses.field(default="float32", metadata=_help("dtype of the rate"))


@dataclasses.dataclass(eq=False, repr=False)
class CosineDecayArguments(CurveArguments):
    """The arguments of `WarmupCosineDecay`."""

    total_steps: int = dataclasses.field(metadata=_help("step at which the floor is reached, warmup and hold included"))
    alpha: float = dataclasses.field(default=0.001, metadata=_help("floor / peak"))
    _: dataclasses.KW_ONLY
    hold_steps: int = dataclasses.field(default=0, metadata=_help("steps at the peak"))


@dataclasses.dataclass(eq=False, repr=False)
class DecayArguments(CosineDecayArguments):
    """The arguments of `WarmupDecay`."""

    _: dataclasses.KW_ONLY
    decay: DecayName = dataclasses.field(metadata=_help("shape of the decay from the peak"))


@dataclasses.dataclass(eq=False, repr=False)
class InverseSqrtArguments(CurveArguments):
    """The arguments of `WarmupInverseSqrt`."""

    _: dataclasses.KW_ONLY
    timescale: int | None = dataclasses.field(
        default=None, metadata=_help("N of sqrt(N / (N + d)); warmup_steps if not given")
    )
    hold_steps: int = dataclasses.field(default=0, metadata=_help("steps at the peak"))


@dataclasses.dataclass(eq=False, repr=False)
class RestartsArguments(CurveArguments):
    """The arguments of `WarmupCosineRestarts`."""

    first_decay_steps: int = dataclasses.field(metadata=_help("steps of the first cycle"))
    t_mul: float = dataclasses.field(default=2.0, metadata=_help("length of a cycle / of the one before"))
    m_mul: float = dataclasses.field(default=1.0, metadata=_help("height of a cycle / of the one before"))
    alpha: float = dataclasses.field(default=0.001, metadata=_help("floor / peak"))
    _: dataclasses.KW_ONLY
    cycles: int | None = dataclasses.field(
        default=None, metadata=_help("number of cycles; as many as fit if not given")
    )


@dataclasses.dataclass(eq=False, repr=False)
class LinearWarmupArguments:
    """The arguments of `LinearWarmup`."""

    schedule: KerasSchedule
    warmup_steps: int
    _: dataclasses.KW_ONLY
    warmup_start: float = 0.0
    hold_steps: int = 0
    start_step: int = 0
