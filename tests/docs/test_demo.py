"""The demo with few steps: it prints the rates of the reference and draws a picture."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
from processes import run_python

from lrops import reference

SCRIPT = Path(__file__).parents[2] / "examples" / "train_vit.py"


@pytest.mark.slow
def test_the_demo_trains_and_draws(tmp_path):
    options = "--total-steps 20 --warmup-steps 8 --peak 1e-3 --output a/b.png".split()
    result = run_python(SCRIPT, *options, folder=tmp_path, TESTS_WITHOUT="")
    assert result.returncode == 0, result.stderr
    # The rates before training, and then the results.
    for name, warmup in (("lrops, with", 8), ("Keras, with", 8), ("lrops, without", 0)):
        rates, results = re.findall(rf"^{name} warmup (.*)$", result.stdout, re.MULTILINE)
        expected = reference.warmup_decay(np.array([0, 4, 8, 10, 19, 20]), 1e-3, warmup, 20)
        np.testing.assert_allclose([float(rate) for rate in rates.split()], expected, rtol=1e-3)
        assert re.fullmatch(r" *\d+\.\d+ +\d+\.\d+ +\d+\.\d % +\d+\.\d ms +\d+\.\d s", results), results
    assert re.search(r"^Warmup .* on 360 test images\.$", result.stdout, re.MULTILINE)
    (apart,) = re.findall(r"differ by at most (.+) of the peak, which is rounding error", result.stdout)
    assert float(apart) < 1e-5
    assert re.search(r"^A step with Keras' CosineDecay takes \d\.\d\d times as long as with lrops", result.stdout, re.M)
    height, width, _ = matplotlib.image.imread(tmp_path / "a" / "b.png").shape
    assert width > 800 and height > 600


@pytest.fixture
def demo(monkeypatch):
    """The script as a module, for what needs no training."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module(SCRIPT.stem)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("--help", "0", "default: 200"),
        ("--total-steps 20", "2", "warmup_steps"),
        ("--peak 0", "2", "peak"),
        ("--batch-size 0", "2", "--batch-size"),
    ],
)
def test_help_and_a_bad_argument_end_before_training(demo, arguments, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_vit.py", *arguments.split()])
    with pytest.raises(SystemExit, match=code):
        demo.main()
    assert said in "".join(capsys.readouterr()) and not list(tmp_path.iterdir())


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
        demo.LROPS: SimpleNamespace(loss=0.1, right=images < right),
        demo.WITHOUT: SimpleNamespace(loss=0.1, right=images < right_without),
    }
    assert demo.verdict(runs).startswith(said)
    runs[demo.KERAS] = SimpleNamespace(loss=0.1, right=images < right + 1)
    same = "The same curve, the same result: warmup is what matters"
    assert demo.headline(runs) == (same if "gained" in said else demo.verdict(runs))
    del runs[demo.KERAS]
    runs[demo.WITHOUT].loss = float("nan")
    assert demo.verdict(runs) == "Training diverged (lrops, without warmup): the test loss is not finite."


@pytest.mark.parametrize(
    ("keras", "without", "said"),
    [
        (1.05, 1.001, "takes 1.05 times as long as with lrops."),
        (1.03, 0.96, "takes 1.03 times as long as with lrops: no difference beyond the noise"),
        (1.005, 1.0, "no difference beyond the noise"),
    ],
)
def test_the_cost_is_compared_with_the_noise(demo, keras, without, said):
    times = {demo.LROPS: 1.0, demo.KERAS: keras, demo.WITHOUT: without}
    runs = {name: SimpleNamespace(seconds=[9.0] + [time] * 5) for name, time in times.items()}
    assert said in demo.cost(runs)
