"""Learning rate schedules with warmup and decay, computed inside the TensorFlow graph by compiled ops.

`import lrops` loads the ops into TensorFlow and XLA. If that fails, the ImportError names the fix.
"""

import sys

from lrops import _checkout

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


# `python -m lrops` must start without TensorFlow, to say what is wrong with it. While Python looks for the module of
# `-m`, sys.argv[0] is "-m", and sys.orig_argv has the module's name. The command `lrops` is lrops_command.py.
_is_command_line = sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].removeprefix("-m") == "lrops"

if not _checkout.hand_over() and not _is_command_line:
    from lrops._loader import build_info, load_ops, op_library_path

    load_ops()
    from lrops import plotting
    from lrops.callbacks import LearningRateLogger
    from lrops.schedules import LinearWarmup, WarmupCosineDecay, WarmupCosineRestarts, WarmupDecay, WarmupInverseSqrt
    from lrops.steps import total_steps

    __version__ = build_info["version"]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
