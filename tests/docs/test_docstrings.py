"""Every example that a user can read runs: docstrings of the public modules, Python in the README."""

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

MODULES = ("callbacks", "curves", "plotting", "schedules", "steps", "_loader", "reference")
README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    results = doctest.testmod(importlib.import_module(f"lrops.{name}"))
    assert results.failed == 0
    assert results.attempted > 0 or name == "reference"


def test_the_readme_runs_and_prints_what_it_says(capsys):
    first, *blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(first, names)  # noqa: S102
    printed = re.search(r"```\n\n((?:    .+\n)+)", README)[1]
    assert capsys.readouterr().out == re.sub("^    ", "", printed, flags=re.MULTILINE)
    for block in blocks:
        exec(block, names)  # noqa: S102
    for step in (0, 50, 100, 550, 1000):
        np.testing.assert_allclose(names["before"](step), names["after"](step), rtol=1e-5, atol=1e-9)
