"""The hyper-parameters of each curve, listed once: the schedules and the command line are made from these classes."""

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


def _said(text: str) -> dict[str, str]:
    """The help text of a hyper-parameter on the command line."""
    return {"help": text}


@dataclasses.dataclass(eq=False, repr=False)
class Hyperparameters:
    """The hyper-parameters that every curve has."""

    initial_learning_rate: float | Variable = dataclasses.field(metadata=_said("the peak"))
    warmup_steps: int = dataclasses.field(metadata=_said("steps from the first rate to the peak"))
    _: dataclasses.KW_ONLY
    warmup_start: float = dataclasses.field(default=0.0, metadata=_said("first rate / peak"))
    start_step: int = dataclasses.field(default=0, metadata=_said("step at which the curve begins"))
    dtype: DtypeName = dataclasses.field(default="float32", metadata=_said("dtype of the rate"))


@dataclasses.dataclass(eq=False, repr=False)
class CosineDecay(Hyperparameters):
    """The hyper-parameters of `WarmupCosineDecay`."""

    total_steps: int = dataclasses.field(metadata=_said("step at which the floor is reached, warmup and hold included"))
    alpha: float = dataclasses.field(default=0.001, metadata=_said("floor / peak"))
    _: dataclasses.KW_ONLY
    hold_steps: int = dataclasses.field(default=0, metadata=_said("steps at the peak"))


@dataclasses.dataclass(eq=False, repr=False)
class Decay(CosineDecay):
    """The hyper-parameters of `WarmupDecay`."""

    _: dataclasses.KW_ONLY
    decay: DecayName = dataclasses.field(metadata=_said("shape of the decay from the peak"))


@dataclasses.dataclass(eq=False, repr=False)
class InverseSqrt(Hyperparameters):
    """The hyper-parameters of `WarmupInverseSqrt`."""

    _: dataclasses.KW_ONLY
    timescale: int | None = dataclasses.field(
        default=None, metadata=_said("N of sqrt(N / (N + d)); warmup_steps if not given")
    )
    hold_steps: int = dataclasses.field(default=0, metadata=_said("steps at the peak"))


@dataclasses.dataclass(eq=False, repr=False)
class Restarts(Hyperparameters):
    """The hyper-parameters of `WarmupCosineRestarts`."""

    first_decay_steps: int = dataclasses.field(metadata=_said("steps of the first cycle"))
    t_mul: float = dataclasses.field(default=2.0, metadata=_said("length of a cycle / of the one before"))
    m_mul: float = dataclasses.field(default=1.0, metadata=_said("height of a cycle / of the one before"))
    alpha: float = dataclasses.field(default=0.001, metadata=_said("floor / peak"))
    _: dataclasses.KW_ONLY
    cycles: int | None = dataclasses.field(
        default=None, metadata=_said("number of cycles; as many as fit if not given")
    )


@dataclasses.dataclass(eq=False, repr=False)
class Warmup:
    """The hyper-parameters of `LinearWarmup`."""

    schedule: KerasSchedule
    warmup_steps: int
    _: dataclasses.KW_ONLY
    warmup_start: float = 0.0
    hold_steps: int = 0
    start_step: int = 0
