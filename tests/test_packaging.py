"""What the build files say twice is the same, and what a user reads of it is there.

Reads the checkout as text. It must not build anything: `make wheels`, `make reproducible` and `make matrix` do.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()
MINORS = re.findall(r'"([\d.]+)"', re.search(r"^tensorflow = \[(.+)\]", PYPROJECT, re.MULTILINE)[1])


def test_a_build_in_isolation_is_for_the_newest_minor():
    assert re.search(r'"tensorflow-cpu==(.+)\.\*"', PYPROJECT)[1] == MINORS[-1]


def test_the_minors_are_in_order():
    assert sorted(MINORS, key=lambda minor: [int(part) for part in minor.split(".")]) == MINORS


def test_the_changelog_has_the_version():
    version = re.search(r'^version = "(.+)"', PYPROJECT, re.MULTILINE)[1]
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()
