"""Learning rate schedules with warmup and decay, computed inside the TensorFlow graph by compiled ops.

`import lrops` loads the ops into TensorFlow and XLA. If that fails, the ImportError names the cure. `python -m lrops`
and the command `lrops` still start, so that they can diagnose the failure.
"""

import os
import sys

try:
    from lrops import _checkout
except ImportError as error:
    raise ImportError(
        f"lrops cannot read its folder {os.path.dirname(__file__)}: run `chmod -R a+rX` on that folder, so that this "
        "user can read it."
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
    if sys.argv[:1] == ["-m"]:  # while Python looks for the module of `-m`; only sys.orig_argv names it
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


def __getattr__(name: str) -> object:
    why = ""
    if name in __all__ and _is_command_line():
        why = ": a program named `lrops` is taken for the command of that name. Rename the program"
    raise AttributeError(f"module 'lrops' has no attribute {name!r}{why}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
