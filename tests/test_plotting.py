"""Pictures of curves: what is drawn where, on which axes, and what is said if it cannot be drawn."""

import matplotlib
import numpy as np
import pytest
from conftest import CORNERS, run_python, schedule_of

import lrops
from lrops import plotting, reference

matplotlib.use("agg")
HOLD = {"warmup_steps": 100, "hold_steps": 200, "total_steps": 1000, "alpha": 0.1}


def hold(peak=1e-3, **changes):
    return lrops.WarmupCosineDecay(peak, **(HOLD | changes))


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_line_is_the_curve():
    ax = hold().plot()
    steps, drawn = ax.lines[0].get_data()
    np.testing.assert_array_equal(drawn, reference.warmup_decay(steps.astype("int64"), 1e-3, **HOLD))
    assert {0, 100, 300, 1000, 1100} <= set(steps)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step (optimizer updates)", "learning rate")
    assert texts(ax) == [
        *("warmup", "hold", "decay", "floor"),
        *("peak 0.001 at step 100", "floor 0.0001 at step 1,000"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", CORNERS)
def test_every_curve_can_be_drawn(name, log, tmp_path):
    schedule_of(CORNERS[name]).plot(tmp_path / "curve.png", log=log)
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_a_given_axis_and_a_log_axis():
    figure = matplotlib.figure.Figure()
    ax = figure.subplots()
    assert hold(alpha=0.0).plot(ax=ax, log=True) is ax
    assert ax.get_yscale() == "log"
    assert np.isnan(ax.lines[0].get_ydata()[0])


def test_several_are_named_by_what_differs():
    ax = plotting.plot(hold(), hold(total_steps=500), hold(5e-4).get_config())
    assert [line.get_label() for line in ax.lines] == [
        "initial_learning_rate=0.001, total_steps=1000",
        "initial_learning_rate=0.001, total_steps=500",
        "initial_learning_rate=0.0005, total_steps=1000",
    ]
    ax = plotting.plot(*[hold()] * 9, labels=list("abcdefghi"))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list("abcdefghi")


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="at least one schedule"):
        plotting.plot()
    with pytest.raises(ValueError, match="one for each of 2 schedules.*1 labels"):
        plotting.plot(hold(), hold(), labels=["a"])
    with pytest.raises(TypeError, match="draws schedules of lrops.*0.001"):
        plotting.plot(0.001)
    with pytest.raises(OSError, match="missing"):
        hold().plot(tmp_path / "missing" / "curve.png")


def test_without_matplotlib_only_drawing_fails(tmp_path):
    script = "import sys\nsys.modules['matplotlib'] = None\nimport lrops\nlrops.WarmupCosineDecay(1e-3, 10, 100).plot()"
    result = run_python("-c", script, folder=tmp_path)
    assert "run `pip install 'lrops[plot]'`" in result.stderr, result.stderr
