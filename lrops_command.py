"""The command `lrops`. It must start without TensorFlow, to say what is wrong with it, so it is outside the package."""

import importlib.util
import sys


def main() -> None:
    """Runs `python -m lrops` under the name of the command."""
    spec = importlib.util.find_spec("lrops")
    assert spec is not None
    sys.modules["lrops"] = importlib.util.module_from_spec(spec)  # not executed: that would load TensorFlow
    from lrops.__main__ import main

    main("lrops")
