"""What pyproject.toml says about the build: the version, the TensorFlow minors, and what each task installs.

It runs before anything is installed, also on Python 3.10, which cannot read TOML. So it reads only the lines it needs.
"""

import re
import sys
from pathlib import Path

_TEXT = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text("utf-8")


def _list(key: str) -> list[str]:
    return re.findall(r'"([^"]+)"', re.search(rf"^{key} = \[(.*?)\]( *#.*?)?$", _TEXT, re.MULTILINE | re.DOTALL)[1])


VERSION = re.search(r'^version = "(.+)"', _TEXT, re.MULTILINE)[1]
MINORS = _list("tensorflow")
# Without TensorFlow: the caller chooses which one to build against.
REQUIREMENTS = [line for line in _list("requires") if not line.startswith("tensorflow")]
EXTRAS = {name: _list(name) for name in ("plot", "demo", "test", "xla-gpu")}
EXTRAS["test"] += EXTRAS["demo"] + REQUIREMENTS  # the tests build without isolation

if __name__ == "__main__":
    lists = {"build": REQUIREMENTS, "lint": _list("lint"), "docs": _list("docs"), **EXTRAS}
    print(*({"version": [VERSION], "minors": MINORS} | lists)[sys.argv[1]], sep="\n")
