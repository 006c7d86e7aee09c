"""The arguments of each curve, listed once: the schedules and the command line are made from these classes."""

from dataclasses import KW_ONLY, dataclass, field
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


@dataclass(eq=False, repr=False)
class CurveArguments:
    """The arguments that every curve has."""

    initial_learning_rate: float | Variable = field(metadata={"help": "the peak"})
    warmup_steps: int = field(metadata={"help": "steps from the first rate to the peak"})
    _: KW_ONLY
    warmup_start: float = field(default=0.0, metadata={"help": "first rate / peak"})
    start_step: int = field(default=0, metadata={"help": "step at which the curve begins"})
    dtype: DtypeName = field(default="float32", metadata={"help": "dtype of the rate"})


@dataclass(eq=False, repr=False)
class CosineDecayArguments(CurveArguments):
    """The arguments of `WarmupCosineDecay`."""

    total_steps: int = field(metadata={"help": "step at which the floor is reached, warmup and hold included"})
    alpha: float = field(default=0.001, metadata={"help": "floor / peak"})
    _: KW_ONLY
    hold_steps: int = field(default=0, metadata={"help": "steps at the peak"})


@dataclass(eq=False, repr=False)
class DecayArguments(CosineDecayArguments):
    """The arguments of `WarmupDecay`."""

    _: KW_ONLY
    decay: DecayName = field(metadata={"help": "shape of the decay from the peak"})


@dataclass(eq=False, repr=False)
class InverseSqrtArguments(CurveArguments):
    """The arguments of `WarmupInverseSqrt`."""

    _: KW_ONLY
    timescale: int | None = field(default=None, metadata={"help": "N of sqrt(N / (N + d)); warmup_steps if not given"})
    hold_steps: int = field(default=0, metadata={"help": "steps at the peak"})


@dataclass(eq=False, repr=False)
class RestartsArguments(CurveArguments):
    """The arguments of `WarmupCosineRestarts`."""

    first_decay_steps: int = field(metadata={"help": "steps of the first cycle"})
    t_mul: float = field(default=2.0, metadata={"help": "length of a cycle / of the one before"})
    m_mul: float = field(default=1.0, metadata={"help": "height of a cycle / of the one before"})
    alpha: float = field(default=0.001, metadata={"help": "floor / peak"})
    _: KW_ONLY
    cycles: int | None = field(default=None, metadata={"help": "number of cycles; as many as fit if not given"})
