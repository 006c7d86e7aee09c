"""Pictures of curves: what is drawn where, on which axes, and what is said if it cannot be drawn."""

import keras
import matplotlib.pyplot
import numpy as np
import pytest
import tf_keras
from conftest import CORNERS, schedule_of
from processes import run_python

import lrops
from lrops import curves, plotting, reference

matplotlib.use("agg")
HOLD = {"warmup_steps": 100, "hold_steps": 200, "total_steps": 1000, "alpha": 0.1}
LARGE = 2**62
# Curves that a picture could fail on, or whose texts could meet something.
PICTURES = {
    "linear": lrops.WarmupDecay(1e-3, 1000, 10_000, decay="linear"),
    "minus_sqrt": lrops.WarmupDecay(1e-3, 1000, 10_000, decay="minus_sqrt"),
    "cooldown": lrops.WarmupDecay(1e-3, 1000, 100_000, 0.0, decay="linear", hold_steps=79_000),
    "late_peak": lrops.WarmupDecay(1e-3, 50_000, 100_000, 0.5, decay="linear", hold_steps=30_000, start_step=70),
    "no_step_reaches_the_floor": lrops.WarmupDecay(1e-3, LARGE // 2, LARGE, decay="linear", start_step=LARGE),
    "inverse_sqrt": lrops.WarmupInverseSqrt(1e-3, 1000),
    "inverse_sqrt_at_once": lrops.WarmupInverseSqrt(1e-3, 0, timescale=300, start_step=1),
    "inverse_sqrt_late_peak": lrops.WarmupInverseSqrt(1e-3, 100_000, timescale=10),
    "inverse_sqrt_large": lrops.WarmupInverseSqrt(1e-3, LARGE, hold_steps=LARGE, start_step=-LARGE),
    "inverse_sqrt_slow": lrops.WarmupInverseSqrt(1e-3, 10, timescale=LARGE),
    "no_step_reaches_the_peak": lrops.WarmupInverseSqrt(1e-3, LARGE, hold_steps=LARGE, start_step=LARGE),
}


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


@pytest.mark.slow
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_no_text_meets_the_curve_or_leaves_the_axes(name, log):
    figure = matplotlib.figure.Figure(figsize=(8, 4.2), layout="constrained")
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    ax = PICTURES[name].plot(ax=figure.subplots(), log=log)
    figure.canvas.draw()
    # Not a rise of a few pixels, beside the text of a peak that comes at once.
    points = ax.transData.transform(ax.lines[0].get_xydata())[10:]
    for text in ax.texts:
        box = matplotlib.text.Text.get_window_extent(text)  # without the line that leads to the floor
        assert not any(box.contains(x, y) for x, y in points), text
        if " at step " in text.get_text():
            assert ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1, text
            assert ax.bbox.y0 <= box.y0 and box.y1 <= ax.bbox.y1 + 1, text


def test_only_what_a_step_reaches_is_named():
    assert texts(PICTURES["no_step_reaches_the_peak"].plot()) == ["warmup"]
    assert texts(PICTURES["no_step_reaches_the_floor"].plot())[:-1] == ["warmup", "decay"]
    assert texts(PICTURES["inverse_sqrt"].plot()) == ["warmup", "decay", "peak 0.001 at step 1,000"]


CYCLES = {
    "long": (lrops.WarmupCosineRestarts(1e-3, 100, 1000, t_mul=1.0, cycles=4), ["cycle 1", "cycle 4", "floor"]),
    "short": (lrops.WarmupCosineRestarts(1e-3, 500, 1000, t_mul=1.0, cycles=12), ["1", "12", "floor"]),
    "many": (lrops.WarmupCosineRestarts(1e-3, 100, 100, t_mul=1.0, cycles=40), ["40 cycles", "floor"]),
    "without end": (lrops.WarmupCosineRestarts(1e-3, 100, 1000), ["5", "..."]),
    "no warmup": (lrops.WarmupDecay(1e-3, 1, 100_000, decay="linear", hold_steps=10), ["hold", "decay", "floor"]),
}


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("name", CYCLES)
def test_the_names_of_phases_do_not_touch(name, width):
    schedule, expected = CYCLES[name]
    figure = matplotlib.figure.Figure(figsize=(width, 3), layout="constrained")
    ax = schedule.plot(ax=figure.subplots())
    figure.draw_without_rendering()
    phases = [text for text in ax.texts if " at step " not in text.get_text().replace("\n", " ")]
    names = [text.get_text() for text in phases]
    assert names[0] == "warmup" and (width == 4 or set(expected) <= set(names))
    assert sum("cycle" in name or name.isdigit() for name in names) in (0, 1, curves_of(schedule))  # all or none
    boxes = [text.get_window_extent() for text in phases]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
    assert ax.bbox.x0 <= boxes[0].x0 + 1 and boxes[-1].x1 <= ax.bbox.x1 + 1


def curves_of(schedule):
    return sum(name.startswith("cycle") for name, _, _ in curves.phases(schedule.get_config()))


def test_a_legend_of_many_is_below_and_makes_the_figure_higher():
    many = [hold(alpha=alpha, warmup_steps=warmup) for alpha in (0.0, 0.1, 0.2, 0.3) for warmup in (10, 100)]
    figure = plotting.plot(*many).figure
    figure.draw_without_rendering()
    (ax,) = figure.axes
    legend, label = ax.get_legend().get_window_extent(), ax.xaxis.label.get_window_extent()
    assert legend.y1 < label.y0 and legend.y0 >= 0 and ax.bbox.height > 250
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 8
    matplotlib.pyplot.close(figure)


def test_the_phases_and_landmarks_of_a_curve_without_an_end():
    config = lrops.WarmupInverseSqrt(1e-3, 100, timescale=50, hold_steps=10, start_step=-1).get_config()
    assert curves.phases(config) == [("warmup", -1, 99), ("hold", 99, 109), ("decay", 109, None)]
    assert curves.landmarks(config) == [
        *(("start", -1), ("middle of warmup", 49), ("peak", 99), ("end of hold", 109)),
        *(("1/2 of the peak", 259), ("1/4 of the peak", 859), ("1/10 of the peak", 5059)),
    ]
    rates = curves.rates(config, np.array([259, 859, 5059]))
    np.testing.assert_allclose(rates, [5e-4, 2.5e-4, 1e-4], rtol=1e-6)
    assert curves.end(config) == 859
    assert curves.landmarks(config | {"timescale": LARGE})[-1] == ("end of hold", 109)


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
    shared = (1e-3, 100)
    curve = lrops.WarmupDecay(*shared, 1000, decay="linear")
    cosines = [lrops.WarmupCosineDecay(*shared, total_steps) for total_steps in (1000, 500)]
    ax = plotting.plot(curve, lrops.WarmupInverseSqrt(*shared), *cosines)
    assert [line.get_label() for line in ax.lines] == [
        "decay=linear, total_steps=1000",
        "decay=inverse_sqrt",
        "decay=cosine, total_steps=1000",
        "decay=cosine, total_steps=500",
    ]
    ax = plotting.plot(*[hold()] * 9, labels=list("abcdefghi"))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list("abcdefghi")


class Own(keras.optimizers.schedules.LearningRateSchedule):
    """One that does not say where it ends."""

    def __call__(self, step):
        return 1e-3

    def get_config(self):
        return {"start_step": 5, "initial_learning_rate": 0.1, "schedule": None}


class Silent(keras.optimizers.schedules.LearningRateSchedule):
    """One without a config, which has to be drawn all the same."""

    def __call__(self, step):
        return 1e-3


SCHEDULES = keras.optimizers.schedules
OTHERS = {
    "polynomial": (SCHEDULES.PolynomialDecay(1e-3, 1000), 1000),
    "cosine": (SCHEDULES.CosineDecay(0.0, 900, warmup_target=1e-3, warmup_steps=100), 1000),
    "restarts": (SCHEDULES.CosineDecayRestarts(1e-3, 100), 700),
    "piecewise": (SCHEDULES.PiecewiseConstantDecay([300, 600], [1e-3, 5e-4, 1e-4]), 600),
    "behind a warmup": (
        lrops.LinearWarmup(SCHEDULES.PolynomialDecay(1e-3, 900), 70, hold_steps=30, start_step=5),
        1005,
    ),
    "a curve behind a warmup": (lrops.LinearWarmup(hold(warmup_steps=0, start_step=9), 100), 1109),
    "tf_keras": (tf_keras.optimizers.schedules.ExponentialDecay(1e-3, 1000, 0.5), 1000),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_schedule_of_keras_can_be_drawn(name):
    schedule, end = OTHERS[name]
    ax = plotting.plot(schedule)
    steps, drawn = ax.lines[0].get_data()
    assert steps[-1] == ax.get_xlim()[1] == end + (end - steps[0]) // 10
    np.testing.assert_array_equal(drawn[::100], [float(schedule(int(step))) for step in steps[::100]])


def test_schedules_of_several_kinds_are_named_by_their_class():
    ax = plotting.plot(hold(), lrops.LinearWarmup(Own(), 10), Own(), last=100)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["WarmupCosineDecay", "LinearWarmup(Own)", "Own"]
    assert ax.get_xlim() == (0, 100)
    plotting.plot(Silent(), last=100)
    plotting.plot(lrops.LinearWarmup(Silent(), 10), last=100)
    (warmup, decay) = [text.get_text() for text in lrops.LinearWarmup(OTHERS["polynomial"][0], 100).plot().texts][:2]
    assert (warmup, decay) == ("warmup", "decay")


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="at least one schedule"):
        plotting.plot()
    with pytest.raises(ValueError, match="one for each of 2 schedules.*1 labels"):
        plotting.plot(hold(), hold(), labels=["a"])
    with pytest.raises(TypeError, match="draws Keras schedules.*0.001"):
        plotting.plot(0.001)
    with pytest.raises(ValueError, match="last must be given.*Own"):
        plotting.plot(Own())
    with pytest.raises(ValueError, match="last must be an integer above the first step, 0,.*Received: last=0"):
        plotting.plot(hold(), last=0)
    with pytest.raises(ValueError, match="last must be an integer.*Received: last='100'"):
        plotting.plot(hold(), last="100")
    with pytest.raises(TypeError, match="draws Keras schedules.*decay_steps"):
        plotting.plot({"decay_steps": 5})
    with pytest.raises(OSError, match="missing"):
        hold().plot(tmp_path / "missing" / "curve.png")


def test_without_matplotlib_only_drawing_fails(tmp_path):
    script = "import sys\nsys.modules['matplotlib'] = None\nimport lrops\nlrops.WarmupCosineDecay(1e-3, 10, 100).plot()"
    result = run_python("-c", script, folder=tmp_path)
    assert "run `pip install matplotlib`" in result.stderr, result.stderr
