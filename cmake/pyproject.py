"""What pyproject.toml says of the build: the version, the TensorFlow minors and the build requirements.

Imported by setup.py, wheels.py, compile_ptx.py and the tests, and asked by the Makefile; they are read nowhere else. An
expression has to do: Python 3.10 has no reader of TOML. It must run before anything is installed.
"""

import re
import sys
from pathlib import Path

_TEXT = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text("utf-8")
VERSION = re.search(r'^version = "(.+)"', _TEXT, re.MULTILINE)[1]
MINORS = re.findall(r'"([\d.]+)"', re.search(r"^tensorflow = \[(.+)\]", _TEXT, re.MULTILINE)[1])
# TensorFlow is no part of these: which one is built against is the caller's choice, and one for each minor.
REQUIREMENTS = [
    line
    for line in re.findall(r'^ +"(.+)",$', re.search(r"requires = \[\n(.+?)\n\]", _TEXT, re.DOTALL)[1], re.MULTILINE)
    if not line.startswith("tensorflow")
]


def requirement(name: str) -> str:
    """The build requirement on a distribution, as pip takes it."""
    return next(line for line in REQUIREMENTS if line.startswith(name))


if __name__ == "__main__":
    print({"version": VERSION, "minors": " ".join(MINORS), "pybind11": requirement("pybind11")}[sys.argv[1]])
