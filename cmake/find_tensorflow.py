"""Prints the folder and the version of TensorFlow, found in the folders given and then in this Python, or nothing.

It does not import TensorFlow.
"""

import importlib.metadata
import importlib.util
import sys

sys.path[:0] = sys.argv[1:]
spec = importlib.util.find_spec("tensorflow")
folder = spec and spec.submodule_search_locations[0]
owners = set(importlib.metadata.packages_distributions().get("tensorflow", ()))
found = [distribution for name in owners for distribution in importlib.metadata.distributions(name=name)]
# The metadata of an editable or split installation is in another folder.
near = [distribution for distribution in found if str(distribution.locate_file("tensorflow")) == folder] or found
if folder and near:
    print(folder)
    print(near[0].version)
