"""Lets `import lrops` work in the folder of a clone, after `pip install .`.

Python looks in the working directory first, and finds the clone's `lrops`, which has no compiled module. `hand_over`
then imports the installed package instead.
"""

import importlib.machinery
import importlib.util
import os
import sys


def hand_over() -> bool:
    """Imports the installed lrops if this one is a clone without a compiled module. Returns whether it did."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if importlib.util.find_spec("lrops._native") or not os.path.isfile(os.path.join(root, "setup.py")):
        return False
    for folder in sys.path:
        spec = importlib.machinery.PathFinder.find_spec("lrops", [folder])
        if spec is None or spec.loader is None or not spec.submodule_search_locations:
            continue
        compiled = importlib.machinery.PathFinder.find_spec("lrops._native", list(spec.submodule_search_locations))
        if compiled is not None:
            for name in [name for name in sys.modules if name.startswith("lrops.")]:
                del sys.modules[name]  # a module of the clone
            module = sys.modules["lrops"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return True
    return False
