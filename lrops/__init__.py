"""Learning rates with warmup and decay inside the TensorFlow graph: the public names.

Importing lrops loads the compiled op, so that saved models that hold it can be opened and XLA knows it. If that fails,
the import fails and names the cure; `python -m lrops` still starts, so that it can diagnose the failure.
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

if _checkout.hand_over():
    pass
# While Python looks for the module of `-m`, argv is ["-m", ...], and the module comes before the rest in orig_argv.
elif sys.argv[:1] != ["-m"] or sys.orig_argv[-len(sys.argv)].removeprefix("-m") != "lrops":
    from lrops._loader import build_info, load_ops, op_library_path

    load_ops()
    from lrops import plotting
    from lrops.callbacks import LearningRateLogger
    from lrops.schedules import LinearWarmup, WarmupCosineDecay, WarmupCosineRestarts, WarmupDecay, WarmupInverseSqrt
    from lrops.steps import total_steps

    __version__ = build_info["version"]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
