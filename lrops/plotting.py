"""Draws learning rates with matplotlib, which is imported when something is drawn. It needs no TensorFlow."""

import collections
import contextlib
import io
import itertools
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lrops import _loader, curves

# Colours that colour-blind readers can tell apart (Okabe and Ito), and a tint for each phase.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_TINTS = {"warmup": "#fce3c3", "hold": "#dff0d9", "decay": "#dbe8f6", "floor": "#e9e9e9"}
_CURVE = {"start_step", "initial_learning_rate"}  # which every config of a curve has


def plot(
    *schedules: Any,
    path: str | os.PathLike[str] | None = None,
    ax: Any = None,
    log: bool = False,
    labels: Sequence[str] | None = None,
    last: int | None = None,
) -> Any:
    """Draws schedules over the steps: those of lrops, of Keras, or your own.

    If you draw one schedule of lrops, each phase has a tint, and the title names the peak and the floor. If you draw
    several schedules, the legend shows in what they differ. Restarts without a last cycle are drawn for five cycles.

    >>> import lrops
    >>> short, long = (lrops.WarmupCosineDecay(1e-3, 100, total_steps) for total_steps in (1000, 2000))
    >>> ax = lrops.plotting.plot(short, long, labels=["1000 steps", "2000 steps"])
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('step (optimizer updates)', 'learning rate')

    Args:
        schedules: Keras schedules, or mappings such as the `get_config` of a curve of lrops returns.
        path: A file to write. Its ending names the kind: ".png", ".svg" or ".pdf". A path of a file system that
            TensorFlow knows, such as "gs://bucket/rate.png", is written by TensorFlow.
        ax: matplotlib axes to draw on. By default a new figure is made.
        log: Whether the rate is on a logarithmic axis, which shows the floor. A rate of 0 is then not drawn.
        labels: The name of each schedule in the legend. By default, the arguments that differ.
        last: The last step to draw. By default, the end of the longest schedule and a tenth more.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
        TypeError: an argument is no schedule.
        ValueError: there is no schedule, the labels are too few or too many, or `last` is wrong or missing.
        OSError: `path` cannot be written.
    """
    drawn = [_picture(schedule) for schedule in schedules]
    if not drawn:
        raise ValueError("plot needs at least one schedule. Received: none")
    labels = _differences(drawn) if labels is None else labels
    if len(labels) != len(drawn):
        raise ValueError(f"labels must be one for each of {len(drawn)} schedules. Received: {len(labels)} labels")
    first = min(picture.start for picture in drawn)
    if last is None:
        end = max(picture.end() for picture in drawn)
        last = min(end + max(1, (end - first) // 10), 2**63 - 1)
    elif not (isinstance(last, int) and first < last < 2**63):
        raise ValueError(f"last must be an integer above the first step, {first}, and below 2^63. Received: {last!r}")
    try:
        from matplotlib import figure, pyplot, ticker
    except ImportError as error:
        raise ImportError("lrops draws with matplotlib: run `pip install matplotlib`.") from error
    if ax is None:
        # pyplot keeps its figures to show them later. A figure for a file is not shown.
        make = pyplot.figure if path is None else figure.Figure
        ax = make(figsize=(8, 4.5), layout="constrained").subplots()
    styles = itertools.product(("-", "--", ":", "-."), _LINES)
    for picture, label, (style, colour) in zip(drawn, labels, itertools.cycle(styles), strict=False):
        steps = _steps(picture, first, last)
        rates = picture.rates(steps).astype(np.float64)
        if log:
            rates = np.where(rates > 0, rates, np.nan)
        ax.plot(steps, rates, style, color=colour, linewidth=2, label=label, zorder=3)
    ax.set_xlim(first, last)
    if log:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_major_locator(ticker.MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True))
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    ax.set(xlabel="step (optimizer updates)", ylabel="learning rate")
    ax.grid(axis="y", color="#d9d9d9", linewidth=0.6, zorder=1)
    ax.spines[["top", "right"]].set_visible(False)
    if len(drawn) == 1 and drawn[0].phases:
        ax.lines[-1].set_label("_")
        _name_phases(ax, drawn[0], last, log)
    # The legend is below the name of the x axis, in as many columns as fit: a character is some 5 points wide.
    longest = max(map(len, ax.get_legend_handles_labels()[1]), default=0)
    columns = max(1, int(ax.bbox.width / ax.figure.dpi * 72 / (45 + 5 * longest)))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.5, ncols=columns, frameon=False, fontsize=9)
    if path is not None:
        _save(ax.figure, os.fspath(path))
    return ax


def _save(figure, path):
    if "://" not in path:
        return figure.savefig(path, dpi=150)
    tf = _loader.import_tensorflow()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format=path.rpartition(".")[2])
    try:
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(buffer.getvalue())
    except tf.errors.OpError as error:  # it names an unknown file system
        raise OSError(f"{path}: {error.message}") from error


# What to draw of a schedule: its name, a function from steps to rates, a function that returns the step after which
# nothing new is to be seen, the first step, the phases, and the config of a curve of lrops.
_Picture = collections.namedtuple("_Picture", "name rates end start phases config", defaults=(0, (), None))


def _picture(schedule):
    def rates(steps):  # one by one: a schedule may take no array
        return np.array([float(schedule(int(step))) for step in steps.ravel()]).reshape(steps.shape)

    config, name = None, type(schedule).__name__
    if isinstance(schedule, Mapping) and _CURVE <= schedule.keys():
        config, name = schedule, curves.decay_of(schedule)
    elif not (callable(schedule) and hasattr(schedule, "get_config")) or isinstance(schedule, type):
        raise TypeError(f"plot draws Keras schedules, those of lrops among them. Received: {schedule!r}")
    elif hasattr(schedule, "on_host") and hasattr(schedule, "schedule"):
        # A LinearWarmup. Its config is not read, because Keras may not be able to save the schedule inside.
        warmup = {name: getattr(schedule, name) for name in ("warmup_steps", "hold_steps", "start_step")}
        inner, phases = _picture(schedule.schedule), curves.phases(warmup)
        name = f"{name}({inner.name})"
        return _Picture(name, rates, lambda: sum(warmup.values()) + inner.end(), schedule.start_step, phases)
    elif hasattr(schedule, "on_host") and _CURVE <= schedule.get_config().keys():  # all schedules of lrops have on_host
        config = schedule.get_config()
    if config is None:
        return _Picture(name, rates, partial(_end_of_other, schedule))
    rates = getattr(schedule, "on_host", partial(curves.rates, config))  # of a subclass they may differ
    return _Picture(name, rates, partial(curves.end, config), config["start_step"], curves.phases(config), config)


def _end_of_other(schedule):
    """The step after which nothing new is to be seen, if the schedule is one of Keras."""
    config = {}
    with contextlib.suppress(NotImplementedError):
        config = schedule.get_config()
    if "first_decay_steps" in config:
        return int(config["first_decay_steps"] * sum(config.get("t_mul", 1.0) ** cycle for cycle in range(3)))
    if "decay_steps" in config:
        return int(config["decay_steps"] + (config.get("warmup_steps") or 0))
    if config.get("boundaries"):
        return int(config["boundaries"][-1])
    raise ValueError(f"last must be given, since this schedule does not say where it ends. Received: {schedule!r}")


def _differences(drawn):
    """For each curve, its arguments that differ among the curves. Between schedules of other kinds, the class."""
    if not all(picture.config for picture in drawn):
        return [picture.name for picture in drawn]
    configs = [{"decay": curves.decay_of(picture.config)} | dict(picture.config) for picture in drawn]
    keys = dict.fromkeys(key for config in configs for key in config if key != "name")
    keys = [key for key in keys if len({config[key] for config in configs if key in config}) > 1]
    return [
        ", ".join(f"{key}={config[key]}" for key in keys if key in config) or picture.name
        for picture, config in zip(drawn, configs, strict=True)
    ]


def _steps(picture, first, last):
    """Where to evaluate: evenly, and at the corners of the curve with their neighbours."""
    even = [first + (last - first) * point // 1500 for point in range(1501)]
    corners = [corner + near for _, corner, _ in picture.phases for near in (-1, 0, 1)]
    return np.array(sorted({step for step in even + corners if first <= step <= last}), np.int64)


def _name_phases(ax, picture, last, log):
    """A tint for each phase, a dot at the peak and at the floor, and a title with their rates and steps."""
    cycles = sum(name not in _TINTS for name, _, _ in picture.phases)
    titles = []
    for number, (name, begin, after) in enumerate(picture.phases):
        if begin > last:
            break
        tint, label = _TINTS.get(name, ("#eef5fb", "#dbe8f6")[number % 2]), name
        if name not in _TINTS:
            label = f"cycles 1 to {cycles}" if name == "cycle 1" else "_"  # which no legend shows
        ax.axvspan(begin, last if after is None else min(after, last), color=tint, label=label, linewidth=0, zorder=0)
        if name == "floor" or name != "warmup" and not titles:
            rate = float(picture.rates(np.array(begin)))
            titles.append(f"{'floor' if titles else 'peak'} {rate:.4g} at step {begin:,}")
            if rate or not log:
                ax.plot(begin, rate, "o", color=_LINES[0], markersize=5, label="_", zorder=4, clip_on=False)
    ax.set_title(", ".join(titles), loc="left", fontsize=9)
