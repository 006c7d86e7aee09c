"""Draws learning rates with matplotlib, which is imported when something is drawn. It needs no TensorFlow."""

import functools
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrops import curves

# Colours that colour-blind readers can tell apart (Okabe and Ito), and a tint for each phase.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_TINTS = {"warmup": "#fdebd3", "hold": "#e6f2e1", "decay": "#e3edf7", "floor": "#efefef"}
_CYCLE_TINTS = ("#e3edf7", "#f2f7fb")
_POINTS = 1500
_GAP = 0.02  # between two names, as a fraction of the width of the axes
_ROOM = 22  # points that a line of text needs, with the gap to the curve


def plot(
    *schedules: Any,
    path: str | os.PathLike[str] | None = None,
    ax: Any = None,
    log: bool = False,
    labels: Sequence[str] | None = None,
    last: int | None = None,
) -> Any:
    """Draws schedules over the steps: those of lrops, of Keras, or your own.

    If you draw one schedule of lrops, its phases are named. If you draw several schedules, a legend below the axes says
    in what they differ. Restarts that have no last cycle are drawn for five cycles, and "..." marks that they go on.

    >>> import lrops
    >>> from lrops import plotting
    >>> short, long = (lrops.WarmupCosineDecay(1e-3, 100, total_steps) for total_steps in (1000, 2000))
    >>> ax = plotting.plot(short, long, labels=["1000 steps", "2000 steps"])
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('step (optimizer updates)', 'learning rate')

    Args:
        schedules: Keras schedules, or mappings such as the `get_config` of a curve of lrops returns.
        path: A file to write. Its ending says which kind, such as ".png", ".svg" or ".pdf".
        ax: matplotlib axes to draw on. By default a new figure is made.
        log: Whether the rate is on a logarithmic axis, which shows the floor. A rate of 0 is then not drawn.
        labels: The name of each schedule in the legend. By default, the arguments that differ.
        last: The last step to draw. By default, the end of the longest schedule and a tenth more.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
        TypeError: an argument is no schedule.
        ValueError: there is no schedule, the number of labels is another than that of schedules, or `last` is missing
            for a schedule that does not say where it ends.
        OSError: `path` cannot be written.
    """
    drawn = [_picture(schedule) for schedule in schedules]
    if not drawn:
        raise ValueError("plot needs at least one schedule. Received: none")
    if labels is None:
        labels = _differences(drawn)
    elif len(labels) != len(drawn):
        raise ValueError(f"labels must be one for each of {len(drawn)} schedules. Received: {len(labels)} labels")
    first = min(picture.start for picture in drawn)
    if last is None:
        end = max(picture.end() for picture in drawn)
        last = min(end + max(1, (end - first) // 10), 2**63 - 1)
    elif not (isinstance(last, int) and first < last < 2**63):
        raise ValueError(
            f"last must be an integer above the first step, {first}, and below 2^63. Received: last={last!r}"
        )
    is_ours = ax is None  # a new figure
    ax = _axes(ax, path)
    lowest, highest = _draw_lines(ax, drawn, labels, first, last, log)
    _draw_axes(ax, lowest, highest)
    if len(drawn) > 1 or not drawn[0].phases:
        _draw_legend(ax, is_ours)
    else:
        _name_phases(ax, drawn[0].phases, first, last)
        _mark_peak_and_floor(ax, drawn[0], last)
    if path is not None:
        ax.figure.savefig(os.fspath(path), dpi=150)
    return ax


def _axes(ax, path):
    try:
        import matplotlib.figure
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            "lrops draws with matplotlib, which is not installed: run `pip install matplotlib`."
        ) from error
    if ax is not None:
        return ax
    # pyplot keeps its figures to show them later. A figure for a file is not shown.
    figure = matplotlib.pyplot.figure if path is None else matplotlib.figure.Figure
    return figure(figsize=(8, 4.2), layout="constrained").subplots()


class _Curve:
    """A curve of lrops, given as a schedule or as its config."""

    def __init__(self, schedule, config):
        self.config = config
        self.start = config["start_step"]
        self.phases = curves.phases(config)
        self.name = curves.decay_of(config) if isinstance(schedule, Mapping) else type(schedule).__name__
        # A subclass may give other rates than its config says.
        self.rates = getattr(schedule, "on_host", functools.partial(curves.rates, config))

    def end(self):
        """The step after which nothing new is to be seen."""
        return curves.end(self.config)


class _Other:
    """A schedule of Keras, or your own. Its config says where it ends, if it is one of Keras'."""

    start, phases = 0, ()

    def __init__(self, schedule):
        self.schedule, self.name = schedule, type(schedule).__name__

    def rates(self, steps):
        """The rates at an array of steps, one by one: many schedules take no array."""
        return np.array([float(self.schedule(int(step))) for step in steps.ravel()]).reshape(steps.shape)

    def end(self):
        """The step after which nothing new is to be seen."""
        try:
            config = self.schedule.get_config()
        except NotImplementedError:
            config = {}
        if "first_decay_steps" in config:
            ratio = config.get("t_mul", 1.0)
            return int(config["first_decay_steps"] * (1 + ratio + ratio**2))
        if "decay_steps" in config:
            return int(config["decay_steps"] + (config.get("warmup_steps") or 0))
        if config.get("boundaries"):
            return int(config["boundaries"][-1])
        raise ValueError(
            f"last must be given, since this schedule does not say where it ends. Received: {self.schedule!r}"
        )


class _BehindWarmup(_Other):
    """A `LinearWarmup`. Its config is not read, because Keras may not be able to save the schedule inside."""

    def __init__(self, schedule):
        super().__init__(schedule)
        self.inner = _picture(schedule.schedule)
        self.name += f"({self.inner.name})"
        self.start = schedule.start_step
        self.phases = curves.phases({name: getattr(schedule, name) for name in _WARMUP})

    def end(self):
        """The step after which nothing new is to be seen."""
        return sum(getattr(self.schedule, name) for name in _WARMUP) + self.inner.end()


_WARMUP = ("warmup_steps", "hold_steps", "start_step")


def _picture(schedule):
    """The schedule as one of the three classes above."""
    if isinstance(schedule, Mapping) and _is_curve(schedule):
        return _Curve(schedule, schedule)
    if not (callable(schedule) and hasattr(schedule, "get_config")) or isinstance(schedule, type):
        raise TypeError(f"plot draws Keras schedules, those of lrops among them. Received: {schedule!r}")
    if not hasattr(schedule, "on_host"):  # all schedules of lrops have it
        return _Other(schedule)
    if hasattr(schedule, "schedule"):
        return _BehindWarmup(schedule)
    config = schedule.get_config()
    return _Curve(schedule, config) if _is_curve(config) else _Other(schedule)


def _is_curve(config):
    return "start_step" in config and "initial_learning_rate" in config


def _differences(drawn):
    """For each curve, its arguments that differ among the curves. Between schedules of other kinds, the class."""
    if not all(isinstance(picture, _Curve) for picture in drawn):
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
    even = [first + (last - first) * point // _POINTS for point in range(_POINTS + 1)]
    corners = [corner + near for _, corner, _ in picture.phases for near in (-1, 0, 1)]
    return np.array(sorted({step for step in even + corners if first <= step <= last}), np.int64)


def _draw_lines(ax, drawn, labels, first, last, log):
    """A line for each schedule. Returns the lowest and the highest rate that is drawn."""
    ax.set_xlim(first, last)
    ax.set_yscale("log" if log else "linear")
    found = []
    styles = itertools.product(("-", "--", ":", "-."), _LINES)
    for picture, label, (style, colour) in zip(drawn, labels, itertools.cycle(styles), strict=False):
        steps = _steps(picture, first, last)
        values = picture.rates(steps).astype(np.float64)
        if log:
            values = np.where(values > 0, values, np.nan)
        found += [values[np.isfinite(values)]]
        ax.plot(steps, values, style, color=colour, linewidth=2, label=label, zorder=3)
    values = np.concatenate(found)
    return (values.min(), values.max()) if values.any() else (0.1, 1.0)  # all are 0


def _draw_axes(ax, lowest, highest):
    """The axes, with room for a line of text above the highest rate and, on a logarithmic axis, below the lowest."""
    from matplotlib import ticker

    room = _ROOM / (ax.bbox.height * 72 / ax.figure.dpi)  # as a fraction of the height
    if ax.get_yscale() == "log":
        decades = max(np.log10(highest / lowest), 0.5) / max(1 - 2 * room, 0.2)
        ax.set_ylim(lowest / 10 ** (room * decades), highest * 10 ** (room * decades))
    else:
        ax.set_ylim(0, highest / max(1 - room, 0.2))
        ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda rate, _: _text(rate, 3)))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True))
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    ax.set_xlabel("step (optimizer updates)")
    ax.set_ylabel("learning rate")
    ax.grid(axis="y", color="#d9d9d9", linewidth=0.6, zorder=1)
    ax.spines[["top", "right"]].set_visible(False)


def _text(rate, digits):
    """A rate as people write it: 0.001 and 1e-9, where Python writes 1e-09."""
    return re.sub("e-0+", "e-", f"{rate:.{digits}g}")


def _draw_legend(ax, is_ours):
    """A legend below the axes, in as many columns as there is room for. A figure of ours grows by its height."""
    lines, labels = ax.get_legend_handles_labels()
    for columns in range(min(len(labels), 4), -1, -1):
        if not columns:  # even one column is too wide
            labels = [label.replace(", ", ",\n") for label in labels]
        # borderaxespad is in units of the font's size: room for the label of the axis, whatever the figure's size is.
        place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "borderaxespad": 4.5}
        legend = ax.legend(lines, labels, **place, ncols=max(columns, 1), frameon=False, fontsize=9)
        if legend.get_window_extent().width <= 1.1 * ax.bbox.width:  # a layout makes the axes wider than they are now
            break
    if is_ours:
        ax.figure.set_figheight(ax.figure.get_figheight() + legend.get_window_extent().height / ax.figure.dpi)


def _width(ax, text):
    """The width of a text, as a fraction of that of the axes."""
    drawn = ax.text(0, 0, text, fontsize=9)
    width = drawn.get_window_extent().width / ax.bbox.width
    drawn.remove()
    return width


def _name_phases(ax, phases, first, last):
    """A tint for each phase, and its name above the axes."""
    spans, cycles = [], []
    tints = itertools.cycle(_CYCLE_TINTS)
    for name, begin, after in phases:
        if begin >= last:  # beyond int64, or beyond the last step drawn
            break
        end = last if after is None else min(after, last)
        span = (begin - first) / (last - first), (end - first) / (last - first)
        number = name.removeprefix("cycle ")
        (spans if number == name else cycles).append((number, *span))
        ax.axvspan(begin, end, color=_TINTS[name] if number == name else next(tints), linewidth=0, zorder=0)
    if cycles:
        names = _names_of_cycles(ax, cycles)
        if end < last:  # no floor follows: there are more cycles
            names.append(("...", cycles[-1][2], 1.0))
            ax.axvspan(end, last, color=next(tints), linewidth=0, zorder=0)
        spans = sorted(spans + names, key=lambda span: span[1])
    # A name is in the middle of its phase, unless that is shorter than the name: then the names move apart.
    widths = [_width(ax, name) for name, _, _ in spans]
    lefts, free = [], 0.0
    for (_, begin, end), width in zip(spans, widths, strict=True):
        lefts.append(max(free, (begin + end - width) / 2))
        free = lefts[-1] + width + _GAP
    end = 1.0 + _GAP
    for place in reversed(range(len(spans))):
        lefts[place] = min(lefts[place], end - _GAP - widths[place])
        end = lefts[place]
    for (name, _, _), left in zip(spans, lefts, strict=True):
        ax.text(left, 1.01, name, transform=ax.transAxes, va="bottom", fontsize=9, color="#555555")


def _names_of_cycles(ax, cycles):
    """The names of all cycles: "cycle 1", else "1", or one name for all of them if a cycle is too short for that."""
    for prefix in ("cycle ", ""):
        names = [(prefix + number, begin, end) for number, begin, end in cycles]
        if all(_width(ax, name) + _GAP / 2 <= end - begin for name, begin, end in names):
            return names
    return [(f"{len(cycles)} cycles", cycles[0][1], cycles[-1][2])]


def _mark_peak_and_floor(ax, picture, last):
    """A dot at the peak and at the floor, with the rate and the step."""
    starts = {name: begin for name, begin, _ in picture.phases}
    peak = min((begin for name, begin in starts.items() if name != "warmup"), default=last + 1)
    for name, step in {"peak": peak, "floor": starts.get("floor", last + 1)}.items():
        if step > last:
            continue
        rate = float(picture.rates(np.array(step)))
        if rate == 0 and ax.get_yscale() == "log":
            continue
        ax.plot([step], [rate], "o", color=_LINES[0], markersize=5, zorder=4, clip_on=False)
        text = f"{name} {_text(rate, 4)} at step {step:,}"
        width = _width(ax, text)
        first, end = ax.get_xlim()
        left = min(max(0.01, (step - first) / (end - first) - width / 2), 0.99 - width)
        beside = {"xy": (left, rate), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        if name == "peak":
            ax.annotate(text, **beside, xytext=(0, 6), fontsize=9, zorder=5)
        elif ax.get_yscale() == "log":
            ax.annotate(text, **beside, xytext=(0, -6), va="top", fontsize=9, zorder=5)
        else:
            _lead_to_floor(ax, picture, text, step, rate)


def _lead_to_floor(ax, picture, text, step, rate):
    """The text of the floor above the curve, on the right, with a line to the floor."""
    width = _width(ax, text)
    if width > 0.4:
        text = text.replace(" at", "\nat")
        width = _width(ax, text)
    first, last = ax.get_xlim()
    begin = min(int(first + (last - first) * max(0, 0.96 - width)), step)
    below = picture.rates(np.linspace(begin, step, 200).astype(np.int64))
    height = max(0.45, float(below.max()) / ax.get_ylim()[1] + 0.06)
    if height > 0.85:  # beside the text of the peak, above all of the curve, or nowhere
        if "\n" in text:
            return
        height = 0.99
    leader = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.8, "shrinkB": 5}
    place = {"xytext": (0.99, height), "textcoords": "axes fraction", "ha": "right"}
    place["va"] = "top" if height == 0.99 else "bottom"
    ax.annotate(text, (step, rate), **place, arrowprops=leader, fontsize=9, zorder=5)
