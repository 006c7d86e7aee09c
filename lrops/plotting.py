"""Draws learning rate curves with matplotlib, which is imported when something is drawn. It needs no TensorFlow."""

import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrops.curves import decay_of, phases, rates
from lrops.curves import end as end_of

# Colours that colour-blind readers tell apart (Okabe and Ito), and a tint for each phase of a lone curve.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_TINTS = {"warmup": "#fdebd3", "hold": "#e6f2e1", "decay": "#e3edf7", "floor": "#efefef"}
_TINTS |= {"cycle": "#e3edf7", "next cycle": "#f2f7fb"}
_POINTS = 1500
_CHARACTER = 0.0125  # the width of one, in parts of that of the axes, roughly


def plot(
    *schedules: Any,
    path: str | os.PathLike[str] | None = None,
    ax: Any = None,
    log: bool = False,
    labels: Sequence[str] | None = None,
    last: int | None = None,
) -> Any:
    """Draws one or more schedules over the steps: those of lrops, of Keras, or your own.

    The phases of a lone curve are marked and named; of several curves each has a line in the legend. Of restarts
    without a number of cycles, the first five cycles are drawn.

    >>> import lrops
    >>> from lrops import plotting
    >>> short, long = (lrops.WarmupCosineDecay(1e-3, 100, total_steps) for total_steps in (1000, 2000))
    >>> ax = plotting.plot(short, long, labels=["1000 steps", "2000 steps"])
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('step (optimizer updates)', 'learning rate')

    Args:
        schedules: Keras schedules, or mappings as the `get_config` of a curve of lrops gives.
        path: A file to write, of a type that matplotlib knows by its ending, as ".png", ".svg" or ".pdf".
        ax: matplotlib axes to draw on. Without them, a new figure with one.
        log: The rate on a logarithmic axis, which shows the floor; a rate of 0 is then not drawn.
        labels: A name for the legend for each schedule; without them, the arguments in which the schedules differ.
        last: The last step to draw. Without it, a tenth past the end of the longest schedule.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
        TypeError: a schedule is none.
        ValueError: no schedule, not as many labels as schedules, or no `last` for a schedule that does not say where it
            ends.
        OSError: `path` cannot be written.
    """
    configs = [_config(schedule) for schedule in schedules]
    curves = [_curve(schedule, config) for schedule, config in zip(schedules, configs, strict=True)]
    if not configs:
        raise ValueError("plot needs at least one schedule. Received: none")
    if labels is None:
        labels = _differences(schedules, configs)
    elif len(labels) != len(configs):
        raise ValueError(f"labels must be one for each of {len(configs)} schedules. Received: {len(labels)} labels")
    ax = _axes(ax, path)
    from matplotlib import ticker

    first = min(config.get("start_step", 0) for config in configs)
    if last is None:
        end = max(_end(schedule, config) for schedule, config in zip(schedules, configs, strict=True))
        last = min(end + max(1, (end - first) // 10), 2**63 - 1)
    elif not (isinstance(last, int) and first < last < 2**63):
        raise ValueError(
            f"last must be an integer above the first step, {first}, and below 2^63. Received: last={last!r}"
        )
    ax.set_xlim(first, last)
    peak = 0.0
    for config, curve, label, colour in zip(configs, curves, labels, _LINES * len(configs), strict=False):
        steps = _steps(config, first, last)
        values = curve(steps).astype(np.float64)
        peak = max(peak, config["initial_learning_rate"] if _is_curve(config) else float(values.max()))
        if log:
            values = np.where(values > 0, values, np.nan)
        ax.plot(steps, values, color=colour, linewidth=2, label=label, solid_capstyle="round", zorder=3)
    ax.set_yscale("log" if log else "linear")
    if log:
        ax.margins(y=0.1)  # room for the names of the peak and the floor, however many decades are between them
    else:
        ax.set_ylim(0, 1.12 * peak)
        ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda rate, _: f"{rate:.3g}"))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    ax.set_xlabel("step (optimizer updates)")
    ax.set_ylabel("learning rate")
    ax.grid(axis="y", color="#d9d9d9", linewidth=0.6, zorder=1)
    ax.spines[["top", "right"]].set_visible(False)
    if len(configs) == 1 and "start_step" in configs[0]:
        _mark_phases(ax, configs[0], curves[0], first, last)
    else:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=9)
    if path is not None:
        ax.figure.savefig(os.fspath(path), dpi=150)
    return ax


def _axes(ax, path):
    try:
        import matplotlib.figure
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            "lrops draws with matplotlib, which is not installed: run `pip install 'lrops[plot]'` or "
            "`pip install matplotlib`."
        ) from error
    if ax is not None:
        return ax
    # pyplot keeps its figures, to show them: not one that goes to a file.
    figure = matplotlib.pyplot.figure if path is None else matplotlib.figure.Figure
    return figure(figsize=(8, 4.2), layout="constrained").subplots()


def _config(schedule):
    if isinstance(schedule, Mapping) and _is_curve(schedule):
        return schedule
    if not (callable(schedule) and hasattr(schedule, "get_config")) or isinstance(schedule, type):
        raise TypeError(f"plot draws Keras schedules, those of lrops among them. Received: {schedule!r}")
    ours = hasattr(schedule, "on_host")
    if ours and hasattr(schedule, "schedule"):  # a LinearWarmup: Keras may not save what is inside
        names = ("schedule", "warmup_steps", "hold_steps", "start_step")
        return {name: getattr(schedule, name) for name in names}
    try:
        config = schedule.get_config()
    except NotImplementedError:
        return {}
    return config if ours else {name: config[name] for name in _ENDS if name in config}


_ENDS = ("decay_steps", "first_decay_steps", "t_mul", "boundaries", "warmup_steps")  # what schedules of Keras end by


def _is_curve(config):
    """Whether it is the config of a curve of lrops, and not of another schedule or of one behind a `LinearWarmup`."""
    return "start_step" in config and "initial_learning_rate" in config


def _curve(schedule, config):
    """The rates at steps, as a function."""
    if _is_curve(config):  # a subclass may give other rates than its config says
        return getattr(schedule, "on_host", functools.partial(rates, config))

    def one_by_one(steps):  # many schedules take no array
        return np.array([float(schedule(int(step))) for step in steps.ravel()]).reshape(steps.shape)

    return one_by_one


def _end(schedule, config):
    """The step after which nothing new is to be seen."""
    if _is_curve(config):
        return end_of(config)
    if "schedule" in config:
        before = config["start_step"] + config["warmup_steps"] + config["hold_steps"]
        return before + _end(config["schedule"], _config(config["schedule"]))
    if "first_decay_steps" in config:
        ratio = config.get("t_mul", 1.0)
        return int(config["first_decay_steps"] * (1 + ratio + ratio**2))
    if "decay_steps" in config:
        return int(config["decay_steps"] + (config.get("warmup_steps") or 0))
    if config.get("boundaries"):
        return int(config["boundaries"][-1])
    raise ValueError(f"last must be given, since this schedule does not say where it ends. Received: {schedule!r}")


def _class_name(schedule):
    inner = getattr(schedule, "schedule", None)
    return type(schedule).__name__ + (f"({_class_name(inner)})" if inner is not None else "")


def _differences(schedules, configs):
    """For each curve, its arguments that differ among the curves that have them; the decay is one that all have.

    Where other schedules are among them, the name of the class.
    """
    if not all(map(_is_curve, configs)):
        return [
            decay_of(config) if isinstance(schedule, Mapping) else _class_name(schedule)
            for schedule, config in zip(schedules, configs, strict=True)
        ]
    configs = [{"decay": decay_of(config)} | config for config in configs]
    keys = dict.fromkeys(key for config in configs for key in config if key != "name")
    keys = [key for key in keys if len({config[key] for config in configs if key in config}) > 1]
    return [", ".join(f"{key}={config[key]}" for key in keys if key in config) for config in configs]


def _phases(config):
    return phases(config) if "start_step" in config else []


def _steps(config, first, last):
    """Where to evaluate: evenly, and at the corners of the curve with their neighbours."""
    even = [first + (last - first) * point // _POINTS for point in range(_POINTS + 1)]
    corners = [corner + near for _, corner, _ in _phases(config) for near in (-1, 0, 1)]
    return np.array(sorted({step for step in even + corners if first <= step <= last}), np.int64)


def _mark_phases(ax, config, curve, first, last):
    """A tint and a name for each phase, and its step and rate for the peak and the floor."""
    free = 0.0  # the place above the axes, in parts of their width, where no name stands yet
    marks = {"peak": config["start_step"] + config["warmup_steps"]}
    cycle_tints = itertools.cycle([_TINTS["cycle"], _TINTS["next cycle"]])
    for name, begin, end in phases(config):
        if begin >= last:  # beyond int64
            break
        if name == "floor":
            marks[name] = begin
        end = last if end is None else min(end, last)
        number = name.removeprefix("cycle ")
        ax.axvspan(begin, end, color=_TINTS[name] if name == number else next(cycle_tints), linewidth=0, zorder=0)
        for text in dict.fromkeys((name, number)):
            width = _CHARACTER * len(text)
            left = ((begin + end) / 2 - first) / (last - first) - width / 2
            # One cycle is like another: it goes by its number, or without a name, where there is no place for one.
            if name == number or (left >= free and width + 0.01 <= (end - begin) / (last - first)):
                left = max(free, left)
                ax.text(left, 1.01, text, transform=ax.transAxes, va="bottom", fontsize=9, color="#555555")
                free = left + width + 0.01
                break
    for name, step in marks.items():
        if step > last:
            continue
        rate = float(curve(np.array(step)))
        if rate == 0 and ax.get_yscale() == "log":
            continue
        ax.plot([step], [rate], "o", color=_LINES[0], markersize=5, zorder=4, clip_on=False)
        text = f"{name} {rate:.4g} at step {step:,}"
        place = _peak_place if name == "peak" else _floor_place
        ax.annotate(text, (step, rate), fontsize=9, zorder=5, **place(ax, text, curve, step))


def _peak_place(ax, text, curve, step):
    """Above the peak, on the side where there is more room."""
    first, last = ax.get_xlim()
    beside = {"xytext": (6, 6)} if step < (first + last) / 2 else {"xytext": (-6, 6), "ha": "right"}
    return beside | {"textcoords": "offset points"}


def _floor_place(ax, text, curve, step):
    """Where the floor's text meets no curve: below it on a logarithmic axis, else well above it."""
    if ax.get_yscale() == "log":
        return {"xytext": (-10, -5), "textcoords": "offset points", "ha": "right", "va": "top"}
    leader = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.8, "shrinkB": 5}
    right = 0.99
    first, last = ax.get_xlim()
    # The curve falls: it is under the text where it is under the text's left end.
    begin = min(int(first + (last - first) * max(0, right - _CHARACTER * len(text))), step)
    height = max(0.45, float(curve(np.array(begin))) / ax.get_ylim()[1] + 0.04)
    return {"xytext": (right, height), "textcoords": "axes fraction", "ha": "right", "arrowprops": leader}
