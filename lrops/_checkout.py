"""A source checkout that was not built in place hands `import lrops` over to the installed package.

Python looks for lrops in the working directory first. Right after `pip install .` that is the checkout, which has no
compiled module; the package that was installed from it has.
"""

import importlib.machinery
import importlib.util
import os
import sys


def hand_over() -> bool:
    """Puts the installed lrops in the place of this one, if this is a checkout without a compiled module."""
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
                del sys.modules[name]  # of this folder
            module = sys.modules["lrops"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return True
    return False
