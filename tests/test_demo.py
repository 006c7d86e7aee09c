"""The demo, run small: it exits well, prints the rates of the reference, and draws a picture.

Runs the checkout's script against the installed package. It must not judge what warmup does to the accuracy.
"""

import re
from pathlib import Path

import matplotlib.image
import numpy as np
from conftest import run_python

from lrops import reference

SCRIPT = Path(__file__).parent.parent / "examples" / "train_vit.py"


def test_the_demo_trains_and_draws(tmp_path):
    result = run_python(
        SCRIPT, "--total-steps", "20", "--warmup-steps", "8", "--peak", "1e-3", "--output", "a/b.png", folder=tmp_path
    )
    assert result.returncode == 0, result.stderr
    for name, warmup in (("with", 8), ("without", 0)):
        (line,) = re.findall(rf"^rate +{name} warmup(.*)$", result.stdout, re.MULTILINE)
        expected = reference.warmup_cosine_decay(np.array([0, 4, 8, 10, 19, 20]), 1e-3, warmup, 20)
        assert line.split() == [f"{rate:.4e}" for rate in expected]
    assert len(re.findall(r"^with(?:out)? warmup +\d+\.\d+ +\d+\.\d+ +\d+\.\d %$", result.stdout, re.MULTILINE)) == 2
    assert re.search(r"^Warmup .* on 360 test images\.$", result.stdout, re.MULTILINE)
    assert "warmup_steps=0" in result.stderr  # the warning is shown
    height, width, _ = matplotlib.image.imread(tmp_path / "a" / "b.png").shape
    assert width > 800 and height > 600


def test_the_demo_explains_itself(tmp_path):
    result = run_python(SCRIPT, "--help", folder=tmp_path)
    assert result.returncode == 0 and "--warmup-steps" in result.stdout and "default: 300" in result.stdout
