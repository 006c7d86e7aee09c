"""Warmup + cosine learning rate inside the TensorFlow graph: the public names, nothing else.

Importing lrops loads the compiled op, so that saved models that hold it can be opened and XLA knows it. Where that
fails, the import fails with the cure; only `python -m lrops` comes up all the same, to say what is wrong.
"""

import sys

__all__ = ["LearningRateLogger", "WarmupCosineDecay", "WarmupCosineRestarts", "build_info", "load_ops", "total_steps"]

# While Python looks for the module of `-m`, argv is ["-m", ...], and the module stands before the rest in orig_argv.
if sys.argv[:1] != ["-m"] or sys.orig_argv[-len(sys.argv)].removeprefix("-m") != "lrops":
    from lrops._loader import build_info, load_ops

    load_ops()
    from lrops.callbacks import LearningRateLogger
    from lrops.schedules import WarmupCosineDecay, WarmupCosineRestarts
    from lrops.steps import total_steps

    __version__ = build_info["version"]
