"""Pictures of curves: what is drawn where, on which axes, and what is said if it cannot be drawn."""

import warnings

import keras
import matplotlib.pyplot
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import CORNERS, schedule_of

import lrops
from lrops import curves, plotting, reference

matplotlib.use("agg")
HOLD = {"warmup_steps": 100, "hold_steps": 200, "total_steps": 1000, "alpha": 0.1}
LARGE = 2**62
# Curves that a picture could fail on.
PICTURES = {
    "cooldown": lrops.WarmupDecay(1e-3, 1000, 100_000, 0.0, decay="linear", hold_steps=79_000),
    "no_step_reaches_the_floor": lrops.WarmupDecay(1e-3, LARGE // 2, LARGE, decay="linear", start_step=LARGE),
    "inverse_sqrt_late_peak": lrops.WarmupInverseSqrt(1e-3, 100_000, timescale=10),
    "inverse_sqrt_large": lrops.WarmupInverseSqrt(1e-3, LARGE, hold_steps=LARGE, start_step=-LARGE),
    "no_step_reaches_the_peak": lrops.WarmupInverseSqrt(1e-3, LARGE, hold_steps=LARGE, start_step=LARGE),
    "restarts_without_end": lrops.WarmupCosineRestarts(1e-3, 100, 1000),
    "restarts_40": lrops.WarmupCosineRestarts(1e-3, 100, 100, t_mul=1.0, cycles=40),
    "least_peak": lrops.WarmupDecay(1e-12, 1, 2, decay="linear"),
} | {name: schedule_of(CORNERS[name]) for name in ("longest", "floor_zero", "late_start", "minus_sqrt", "one_step")}


def hold(peak=1e-3, **changes):
    return lrops.WarmupCosineDecay(peak, **(HOLD | changes))


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_line_is_the_curve():
    ax = hold().plot()
    steps, drawn = ax.lines[0].get_data()
    np.testing.assert_array_equal(drawn, reference.warmup_decay(steps.astype("int64"), 1e-3, **HOLD))
    assert {0, 100, 300, 1000, 1100} <= set(steps)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step (optimizer updates)", "learning rate")
    assert legend(ax) == ["warmup", "hold", "decay", "floor"]
    assert ax.get_title(loc="left") == "peak 0.001 at step 100, floor 0.0001 at step 1,000"
    dots = [[[100, np.float32(1e-3)]], [[1000, np.float32(1e-4)]]]
    assert [line.get_xydata().tolist() for line in ax.lines[1:]] == dots
    restarts = lrops.WarmupCosineRestarts(1e-3, 100, 1000, cycles=3)
    steps, drawn = restarts.plot().lines[0].get_data()
    assert {99, 100, 1099, 1100, 3099, 3100, 7100} <= set(steps)
    np.testing.assert_array_equal(drawn, restarts.on_host(steps.astype("int64")))
    one = lrops.WarmupCosineRestarts(1e-3, 100, 1000, cycles=1)
    for last in (800, 1100):  # in the only cycle, and at its end
        assert plotting.plot(one, last=last).get_xlim() == (0, last)
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("name", PICTURES)
def test_every_curve_can_be_drawn(name, tmp_path):
    for log in (False, True):
        ax = PICTURES[name].plot(tmp_path / "curve.png", log=log)
        assert (tmp_path / "curve.png").stat().st_size > 5000
        ax.figure.draw_without_rendering()
        # Nothing leaves the figure, and nothing is drawn over something else.
        boxes = [text.get_window_extent() for text in (ax.xaxis.label, ax.get_legend(), ax._left_title)]
        assert all(not one.overlaps(other) for one in boxes[:1] for other in boxes[1:])
        assert all(0 <= box.x0 and box.x1 <= ax.figure.bbox.x1 and 0 <= box.y0 for box in boxes)


@pytest.mark.parametrize(
    ("name", "phases", "title"),
    [
        ("no_step_reaches_the_peak", ["warmup"], ""),
        ("no_step_reaches_the_floor", ["warmup", "decay"], f"peak 0.001 at step {LARGE * 3 // 2:,}"),
        ("inverse_sqrt_late_peak", ["warmup", "decay"], "peak 0.001 at step 100,000"),
        ("restarts_without_end", ["warmup", "cycles 1 to 5"], "peak 0.001 at step 100"),
        ("restarts_40", ["warmup", "cycles 1 to 40", "floor"], "peak 0.001 at step 100, floor 1e-06 at step 4,100"),
    ],
)
def test_only_what_a_step_reaches_is_named(name, phases, title):
    ax = PICTURES[name].plot()
    assert (legend(ax), ax.get_title(loc="left")) == (phases, title)
    matplotlib.pyplot.close(ax.figure)


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
    assert np.isnan(ax.lines[0].get_ydata()[0]) and len(ax.lines) == 2  # no dot at the floor, which is 0


def test_several_are_named_by_what_differs():
    line, root = lrops.WarmupDecay(1e-3, 100, 1000, decay="linear"), lrops.WarmupInverseSqrt(1e-3, 100)
    long, short = (lrops.WarmupCosineDecay(1e-3, 100, total_steps) for total_steps in (1000, 500))
    ax = plotting.plot(line, root, long, short.get_config())
    assert legend(ax) == [
        "decay=linear, total_steps=1000",
        "decay=inverse_sqrt",
        "decay=cosine, total_steps=1000",
        "decay=cosine, total_steps=500",
    ]
    ax = plotting.plot(*[hold()] * 9, labels=list("abcdefghi"))
    assert legend(ax) == list("abcdefghi")
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 9


SCHEDULES = keras.optimizers.schedules


class Own(SCHEDULES.LearningRateSchedule):
    """One that does not say where it ends."""

    def __call__(self, step):
        return 1e-3

    def get_config(self):
        return {"start_step": 5, "initial_learning_rate": 0.1, "schedule": None}


class Silent(SCHEDULES.LearningRateSchedule):
    """One without a config, whose rates are 0."""

    def __call__(self, step):
        return 0.0


OTHERS = {
    "polynomial": (SCHEDULES.PolynomialDecay(1e-3, 1000), 1000),
    "cosine": (SCHEDULES.CosineDecay(0.0, 900, warmup_target=1e-3, warmup_steps=100), 1000),
    "restarts": (SCHEDULES.CosineDecayRestarts(1e-3, 100), 700),
    "piecewise": (SCHEDULES.PiecewiseConstantDecay([300, 600], [1e-3, 5e-4, 1e-4]), 600),
    "behind a warmup": (lrops.LinearWarmup(SCHEDULES.CosineDecay(1e-3, 900), 70, hold_steps=30, start_step=5), 1005),
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
    expected = ["warmup", "hold", "decay"] if name == "behind a warmup" else ["warmup", "decay"]
    assert legend(ax) == (expected if "behind" in name else [type(schedule).__name__])


def test_schedules_of_several_kinds_are_named_by_their_class():
    ax = plotting.plot(hold(), lrops.LinearWarmup(Own(), 10), Own(), last=100)
    assert legend(ax) == ["WarmupCosineDecay", "LinearWarmup(Own)", "Own"]
    assert ax.get_xlim() == (0, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of matplotlib, on an axis where nothing can be drawn
        for log in (False, True):
            plotting.plot(Silent(), last=100, log=log)
            plotting.plot(lrops.LinearWarmup(Silent(), 10), last=100, log=log)
    matplotlib.pyplot.close("all")


WRONG = [
    ([], {}, "at least one schedule"),
    ([hold(), hold()], {"labels": ["a"]}, "one for each of 2 schedules.*1 labels"),
    ([0.001], {}, "draws Keras schedules.*0.001"),
    ([Own()], {}, "last must be given.*Own"),
    ([hold()], {"last": 0}, "last must be an integer above the first step, 0,.*Received: 0"),
    ([hold()], {"last": "100"}, "last must be an integer.*Received: '100'"),
    ([{"decay_steps": 5}], {}, "draws Keras schedules.*decay_steps"),
]


@pytest.mark.parametrize(("schedules", "arguments", "message"), WRONG)
def test_bad_arguments(schedules, arguments, message):
    with pytest.raises(TypeError if "draws" in message else ValueError, match=message):
        plotting.plot(*schedules, **arguments)


def test_a_file_system_of_tensorflow():
    with tf.io.gfile.GFile("ram://rate.pdf", "wb"):
        hold().plot("ram://rate.pdf")
    assert tf.io.gfile.GFile("ram://rate.pdf", "rb").read().startswith(b"%PDF")
