"""Draws the pictures of docs/curves: one of each curve, and one of several over each other for the README.

`make pictures` runs it. It needs matplotlib, which brings Pillow.
"""

import io
from pathlib import Path

import keras
import matplotlib.figure
import matplotlib.patheffects
from PIL import Image

import lrops
from lrops import plotting

FOLDER = Path(__file__).parent.parent / "docs" / "curves"
PEAK, WARMUP, TOTAL = 1e-3, 1000, 10_000


def curves():
    """The schedule of each picture, by the name of its file."""
    staircase = keras.optimizers.schedules.ExponentialDecay(PEAK, 2000, 0.5, staircase=True)
    return {
        "cosine": lrops.WarmupCosineDecay(PEAK, WARMUP, TOTAL),
        "linear": lrops.WarmupDecay(PEAK, WARMUP, TOTAL, decay="linear"),
        "minus_sqrt": lrops.WarmupDecay(PEAK, WARMUP, TOTAL, decay="minus_sqrt", hold_steps=6000),
        "inverse_sqrt": lrops.WarmupInverseSqrt(PEAK, WARMUP),
        "restarts": lrops.WarmupCosineRestarts(PEAK, WARMUP, 1300, m_mul=0.8),
        "linear_warmup": lrops.LinearWarmup(staircase, WARMUP),
    }


def draw(schedule, path, last):
    """The picture of one curve."""
    figure = matplotlib.figure.Figure(figsize=(7.2, 3.4), layout="constrained", dpi=200)
    plotting.plot(schedule, ax=figure.subplots(), last=last)
    save(figure, path)


# Of the picture of all: what is written on each line, and where: step and rate / peak.
NAMES = {
    "cosine": ("cosine", 4300, 0.745),
    "linear": ("linear", 4300, 0.633),
    "minus_sqrt": ("hold, then 1 - sqrt", 4000, 1.035),
    "inverse_sqrt": ("inverse square root", 9150, 0.385),
    "restarts": ("restarts", 1850, 0.34),
}


def draw_all(schedules, path):
    """The curves over each other, with their names on the lines."""
    figure = matplotlib.figure.Figure(figsize=(10, 3.8), layout="constrained", dpi=200)
    names = [NAMES[name][0] for name in NAMES]
    ax = plotting.plot(*[schedules[name] for name in NAMES], ax=figure.subplots(), labels=names, last=TOTAL + 1000)
    ax.get_legend().remove()
    ax.set_ylim(0, 1.12 * PEAK)  # room for the name above the hold
    halo = [matplotlib.patheffects.withStroke(linewidth=3, foreground="white")]
    for line, (text, step, height) in zip(ax.lines, NAMES.values(), strict=True):
        style = {"color": line.get_color(), "path_effects": halo, "ha": "center", "va": "center", "zorder": 5}
        ax.text(step, height * PEAK, text, fontsize=11, **style)
    ax.set_title("Each rises for 1000 steps to the peak. They differ in how the rate falls.", fontsize=11, loc="left")
    save(figure, path)


def save(figure, path):
    """Writes a PNG of 64 colours, which is a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer)
    Image.open(buffer).convert("RGB").quantize(64).save(path, optimize=True)


def main():
    """Writes all pictures."""
    schedules = curves()
    for name, schedule in schedules.items():
        last = None if name == "restarts" else TOTAL + 999  # None: five cycles
        draw(schedule, FOLDER / f"{name}.png", last)
    draw_all(schedules, FOLDER / "all.png")


if __name__ == "__main__":
    main()
