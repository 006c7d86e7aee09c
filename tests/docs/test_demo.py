"""The demo, run small: it exits well, prints the rates of the reference, and draws a picture."""

import importlib.util
import re
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from conftest import run_python

from lrops import reference

SCRIPT = Path(__file__).parents[2] / "examples" / "train_vit.py"


def test_the_demo_trains_and_draws(tmp_path):
    result = run_python(
        SCRIPT, "--total-steps", "20", "--warmup-steps", "8", "--peak", "1e-3", "--output", "a/b.png", folder=tmp_path
    )
    assert result.returncode == 0, result.stderr
    for name, warmup in (("with", 8), ("without", 0)):
        (line,) = re.findall(rf"^rate +{name} warmup(.*)$", result.stdout, re.MULTILINE)
        expected = reference.warmup_decay(np.array([0, 4, 8, 10, 19, 20]), 1e-3, warmup, 20)
        assert line.split() == [f"{rate:.4e}" for rate in expected]
    assert len(re.findall(r"^with(?:out)? warmup +\d+\.\d+ +\d+\.\d+ +\d+\.\d %$", result.stdout, re.MULTILINE)) == 2
    assert re.search(r"^Warmup .* on 360 test images\.$", result.stdout, re.MULTILINE)
    assert "warmup_steps=0" in result.stderr  # the warning is shown
    height, width, _ = matplotlib.image.imread(tmp_path / "a" / "b.png").shape
    assert width > 800 and height > 600


def test_the_demo_explains_itself(tmp_path):
    result = run_python(SCRIPT, "--help", folder=tmp_path)
    assert result.returncode == 0 and "--warmup-steps" in result.stdout and "default: 300" in result.stdout


@pytest.fixture
def demo():
    """The script as a module, for what needs no training."""
    spec = importlib.util.spec_from_file_location("train_vit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--total-steps", "20"], "warmup_steps"), (["--peak", "0"], "peak"), (["--batch-size", "0"], "--batch-size")],
)
def test_a_bad_argument_is_refused_before_training(demo, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_vit.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        demo.main()
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("right", "right_without", "said"),
    [
        (350, 36, "Warmup gained 87.2 points"),
        (36, 350, "Warmup lost 87.2 points"),
        (352, 350, "Warmup made no difference beyond chance: +0.6 points"),
        (350, 350, "Warmup made no difference beyond chance: +0.0 points"),
    ],
)
def test_the_verdict_follows_the_numbers(demo, right, right_without, said):
    images = np.arange(360)
    runs = {
        demo.WITH: {"loss": 0.1, "right": images < right},
        demo.WITHOUT: {"loss": 0.1, "right": images < right_without},
    }
    assert demo.verdict(runs).startswith(said)
    runs[demo.WITHOUT]["loss"] = float("nan")
    assert demo.verdict(runs) == "Training diverged without warmup: the test loss is not finite."
