"""docs/recipes.md, executed section by section, each followed by a check that it did what it is for."""

import re
from pathlib import Path

import numpy as np
import pytest

import lrops

DOCUMENT = (Path(__file__).parents[2] / "docs/recipes.md").read_text(encoding="utf-8")
SETUP, *SECTIONS = ("".join(re.findall(r"```python\n((?:.*\n)*?)```", part)) for part in DOCUMENT.split("\n## "))
SECTIONS = dict(zip(re.findall("^## (.+)$", DOCUMENT, re.MULTILINE), SECTIONS, strict=True))


def iterations(names):
    return int(names["model"].optimizer.iterations)


def check_count(names):
    assert iterations(names) == names["total"] == 160


def check_log(names):
    assert names["history"].history["learning_rate"] == list(names["schedule"].on_host([31, 63, 95, 127, 159]))
    assert len(Path("rate.csv").read_text().splitlines()) == 1 + 16
    assert list(Path("logs").iterdir())


def check_look(names):
    assert Path("rate.png").stat().st_size > 10_000
    assert names["rates"].shape == (160,)


def check_resume(names):
    assert iterations(names) == 160
    assert names["model"].optimizer.learning_rate == names["schedule"](160)


def check_longer(names):
    new = names["model"].optimizer._learning_rate
    assert iterations(names) == 160 + 96
    assert names["history"].history["learning_rate"] == list(new.on_host([191, 223, 255]))
    assert new(160) == 0 and new(168) == np.float32(5e-3)
    # What the section says of a longer hold.
    usual, longer = (lrops.WarmupCosineDecay(1e-3, 10, 200 + more, hold_steps=50 + more) for more in (0, 30))
    np.testing.assert_array_equal(usual.on_host(range(61)), longer.on_host(range(61)))


def check_accumulate(names):
    assert iterations(names) == 160 / 4
    assert names["optimizer"].learning_rate == names["schedule"](160)
    assert names["schedule"].warmup_steps == 4 * 5


def check_batch_size(names):
    schedule = names["schedule"]
    assert iterations(names) == schedule.total_steps == 20 * 8
    assert [float(schedule(step)) for step in (0, 5 * 8)] == pytest.approx([0.01, 0.04])


def check_batch_size_midway(names):
    schedule = names["schedule"]
    assert iterations(names) == schedule.total_steps == 5 * 32 + 15 * 8
    assert float(schedule(32)) == pytest.approx(0.04)
    assert names["model"].optimizer.learning_rate == schedule(280)


def check_plateau(names):
    assert iterations(names) == names["schedule"].total_steps
    names["peak"].assign(1.0)
    plateau = names["ReducePeakOnPlateau"](names["peak"], factor=0.25, patience=2)
    peaks = []
    for loss in (3.0, 2.0, 2.0, 2.5, 2.0, 1.0, 1.0, 1.0):
        plateau.on_epoch_end(0, {"val_loss": loss})
        peaks.append(float(names["schedule"](32)))
    assert peaks == [1, 1, 1, 0.25, 0.25, 0.25, 0.25, 0.0625]


def check_weight_decay(names):
    schedule, factor = names["schedule"], names["ScheduledAdamW"].fall
    names["model"].save("model.keras")
    optimizer = names["keras"].saving.load_model("model.keras").optimizer
    assert optimizer.get_config()["weight_decay"] == 0.1
    weight = names["keras"].Variable(1.0)
    optimizer = optimizer.from_config(optimizer.get_config())
    expected = 1.0
    for step in range(170):  # without a gradient, decay alone moves a weight
        optimizer.apply([names["tf"].constant(0.0)], [weight])
        expected *= 1 - 0.1 * float(factor(step)) * float(schedule(step))
    assert float(weight) == pytest.approx(expected, rel=1e-5)
    assert [float(factor(step)) for step in (0, 16, 160)] == pytest.approx([1, 1, 0.1])


CHECKS = {
    "Count the steps": check_count,
    "Log the rate": check_log,
    "Look at the curve": check_look,
    "Resume a run that was cut short": check_resume,
    "Train longer after the end": check_longer,
    "Accumulate gradients": check_accumulate,
    "Another batch size, or more replicas": check_batch_size,
    "Another batch size in the middle of a run": check_batch_size_midway,
    "Lower the peak when the loss stalls": check_plateau,
    "A weight decay with a curve of its own": check_weight_decay,
}


@pytest.mark.parametrize("name", SECTIONS)
def test_recipe(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "recipe"}
    exec(SETUP + SECTIONS[name], names)  # noqa: S102
    CHECKS[name](names)


def test_the_list_names_each_recipe():
    listed = re.findall(r"^\* \[(.+)\]\(#(.+)\)$", DOCUMENT, re.MULTILINE)
    assert [name for name, _ in listed] == list(SECTIONS) == list(CHECKS)
    assert all(re.sub(r"[^\w\- ]", "", name).lower().replace(" ", "-") == anchor for name, anchor in listed)
