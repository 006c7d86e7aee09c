"""Learning rates with warmup and decay inside the TensorFlow graph: the public names.

Importing lrops loads the compiled op, so that saved models that hold it can be opened and XLA knows it. If that fails,
the import fails and names the cure; `python -m lrops` and the command `lrops` still start, so that they can diagnose
the failure.
"""

import os
import sys

try:
    from lrops import _checkout
except ImportError as error:
    raise ImportError(
        f"lrops cannot read its folder {os.path.dirname(__file__)}: make it readable for this user, "
        "`chmod -R a+rX` on it."
    ) from error

__all__ = [
    "LearningRateLogger",
    "LinearWarmup",
    "WarmupCosineDecay",
    "WarmupCosineRestarts",
    "WarmupDecay",
    "WarmupInverseSqrt",
    "build_info",
    "load_ops",
    "op_library_path",
    "plotting",
    "total_steps",
]


def _is_command_line() -> bool:
    """Whether this is `python -m lrops` or the command `lrops`: it must start without TensorFlow."""
    if sys.argv[:1] == ["-m"]:  # Python looks for the module of `-m`, which comes before the rest in orig_argv
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m") == "lrops"
    return os.path.basename("".join(sys.argv[:1])) == "lrops"


if not _checkout.hand_over() and not _is_command_line():
    from lrops._loader import build_info, load_ops, op_library_path

    load_ops()
    from lrops import plotting
    from lrops.callbacks import LearningRateLogger
    from lrops.schedules import LinearWarmup, WarmupCosineDecay, WarmupCosineRestarts, WarmupDecay, WarmupInverseSqrt
    from lrops.steps import total_steps

    __version__ = build_info["version"]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
