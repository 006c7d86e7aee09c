"""What a schedule costs a training step: the contenders, the step, and their times, measured in turns."""

import dataclasses
import gc
import math
import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from lrops.schedules import WarmupCosineDecay, WarmupCosineRestarts, WarmupDecay, WarmupInverseSqrt

PEAK, WARMUP, TOTAL, ALPHA = 1e-3, 1000, 100_000, 0.001
FIRST_CYCLE = (TOTAL - WARMUP) // 7  # three of them, each twice as long as the one before, end at TOTAL


class HandWritten(keras.optimizers.schedules.LearningRateSchedule):
    """A curve in TensorFlow's ops, without a branch, as in tutorials."""

    def __init__(self, decay="cosine"):
        self.decay = decay

    def __call__(self, step):
        """The rate at a step."""
        step = tf.cast(step, tf.float32)
        if self.decay == "inverse_sqrt":
            decay = tf.math.rsqrt(step / WARMUP)
        else:
            progress = tf.clip_by_value((step - WARMUP) / (TOTAL - WARMUP), 0.0, 1.0)
            if self.decay == "cosine":
                decay = 0.5 * (1 + tf.cos(math.pi * progress))
            else:
                decay = 1 - (progress if self.decay == "linear" else tf.sqrt(progress))
            decay = ALPHA + (1 - ALPHA) * decay
        return PEAK * tf.where(step < WARMUP, step / WARMUP, decay)


class Joined(keras.optimizers.schedules.LearningRateSchedule):
    """Keras' `PolynomialDecay` for the warmup, joined to another schedule of Keras for the decay."""

    def __init__(self, decay):
        self.warmup = keras.optimizers.schedules.PolynomialDecay(0.0, WARMUP, PEAK)
        self.decay = decay

    def __call__(self, step):
        """The rate at a step."""
        return tf.where(step < WARMUP, self.warmup(step), self.decay(step - WARMUP))


def curves():
    """The curves of lrops that are compared, by the name of their decay."""
    return {
        "cosine": WarmupCosineDecay(PEAK, WARMUP, TOTAL, ALPHA),
        "linear": WarmupDecay(PEAK, WARMUP, TOTAL, ALPHA, decay="linear"),
        "minus_sqrt": WarmupDecay(PEAK, WARMUP, TOTAL, ALPHA, decay="minus_sqrt"),
        "inverse_sqrt": WarmupInverseSqrt(PEAK, WARMUP),
        "restarts": WarmupCosineRestarts(PEAK, WARMUP, FIRST_CYCLE, alpha=ALPHA),
    }


def contenders(names=None, decay="cosine"):
    """The contenders, or those of `names`: name -> what an optimizer takes as `learning_rate`.

    A constant rate, twice to show the noise; the curve of lrops with this decay; and what users of Keras write for it.
    """
    library = keras.optimizers.schedules
    rates = {"constant": PEAK, "constant, again": PEAK, "lrops": curves()[decay]}
    if decay == "cosine":
        rates["Keras CosineDecay, warmup"] = library.CosineDecay(
            0.0, TOTAL - WARMUP, ALPHA, warmup_target=PEAK, warmup_steps=WARMUP
        )
        rates["Keras PolynomialDecay + CosineDecay"] = Joined(library.CosineDecay(PEAK, TOTAL - WARMUP, ALPHA))
    if decay == "linear":
        rates["Keras PolynomialDecay, twice"] = Joined(library.PolynomialDecay(PEAK, TOTAL - WARMUP, PEAK * ALPHA))
    if decay == "restarts":
        after = library.CosineDecayRestarts(PEAK, FIRST_CYCLE, alpha=ALPHA)
        rates["Keras PolynomialDecay + CosineDecayRestarts"] = Joined(after)
    else:
        rates["hand-written, tf.where"] = HandWritten(decay)
    return {name: rates[name] for name in names or rates}


@dataclasses.dataclass
class Step:
    """A training step that is ready to be timed."""

    run: Callable[[], object]  # makes one step
    wait: Callable[[], object] = lambda: None  # until the device has finished all of them
    first_call: float = 0.0  # seconds: trace and compile
    nodes: int = 0  # of the graph and of all functions that it calls; 0 where there is none
    instructions: int = 0  # of the module as XLA runs it; 0 without XLA
    optimizer: object = None


def called(run, wait=lambda: None, **fields):
    """A `Step` whose first call, which traces and compiles, has been made and timed."""
    gc.collect()  # else this call would also collect the garbage of earlier ones, which takes a sixth of a second
    start = time.perf_counter()
    run()
    wait()
    return Step(run, wait, time.perf_counter() - start, **fields)


def training_step(rate, optimizer="AdamW", variables=100, elements=256, mode="graph"):
    """An optimizer's step over small weights, so that arithmetic does not hide the cost of the schedule.

    `optimizer` is the name of a Keras optimizer, or a function that makes one from `rate`. "AdamW" gets a weight decay.
    `mode` is "eager", "graph" or "xla".
    """
    weights = [keras.Variable(np.ones(elements, "float32")) for _ in range(variables)]
    gradients = [tf.fill([elements], 1e-3) for _ in range(variables)]
    decay = {"weight_decay": 0.01} if optimizer == "AdamW" else {}
    make = getattr(keras.optimizers, optimizer) if isinstance(optimizer, str) else optimizer
    optimizer = make(rate, **decay)
    optimizer.build(weights)

    def run():
        optimizer.apply(gradients)

    wait = optimizer.iterations.numpy
    if mode == "eager":
        return Step(run, wait, optimizer=optimizer)
    run = tf.function(run, jit_compile=mode == "xla")
    step = called(run, wait, optimizer=optimizer)
    definition = run.get_concrete_function().graph.as_graph_def()
    step.nodes = len(definition.node) + sum(len(function.node_def) for function in definition.library.function)
    if mode == "xla":
        step.instructions = run.experimental_get_compiler_ir()(stage="optimized_hlo").count(" = ")
    return step


def alternate(steps, rounds, seconds):
    """Times `steps`, name -> `Step`, in turns, so that a slow minute of the machine slows all of them alike.

    Returns name -> the microseconds a call took, one number for each round. A turn takes so many seconds.
    """

    def microseconds(step, calls):
        step.wait()
        start = time.perf_counter()
        for _ in range(calls):
            step.run()
        step.wait()
        return (time.perf_counter() - start) / calls * 1e6

    calls = {name: max(1, int(seconds * 1e6 / microseconds(step, 3))) for name, step in steps.items()}
    turns = [{name: microseconds(step, calls[name]) for name, step in steps.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in turns] for name in steps}


def summary(times, baseline="constant"):
    """Median, half of the interquartile range, and median ratio to the baseline, of what `alternate` returns."""
    rows = {}
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4)
        ratios = [value / base for value, base in zip(values, times[baseline], strict=True)]
        rows[name] = {
            "us": statistics.median(values),
            "spread_us": (high - low) / 2,
            "ratio": statistics.median(ratios),
        }
    return rows


def figures(steps, rounds, seconds, baseline="constant"):
    """The `summary` of the steps' times, with the facts of each step."""
    rows = summary(alternate(steps, rounds, seconds), baseline)
    for name, step in steps.items():
        rows[name] |= {"first_call_s": step.first_call, "nodes": step.nodes, "instructions": step.instructions}
    return rows


def built(make, rates):
    """Name -> `make(rate)` for each of `rates`. One more is built first and thrown away.

    The step that a process builds first may run a fifth faster (seen under XLA), and its first call also sets up what
    all of them share.
    """
    make(next(iter(rates.values())))
    return {name: make(rate) for name, rate in rates.items()}


def compare(optimizer="AdamW", variables=100, mode="graph", rounds=25, seconds=0.1, elements=256, decay="cosine"):
    """Builds and times the step of every contender. Returns name -> a dict of its figures."""
    steps = built(lambda rate: training_step(rate, optimizer, variables, elements, mode), contenders(decay=decay))
    return figures(steps, rounds, seconds)


COLUMNS = {  # of a row: heading and format
    "us": ("step time, us", ".0f"),
    "spread_us": ("spread, us", ".0f"),
    "ratio": ("step time / constant rate", ".2f"),
    "first_call_s": ("first call, s", ".2f"),
    "nodes": ("graph nodes", ".0f"),
    "instructions": ("XLA instructions", ".0f"),
}


def table(rows):
    """The rows of `compare` as a Markdown table, with the columns that any of them has."""
    columns = {key: COLUMNS[key] for key in COLUMNS if any(row.get(key) for row in rows.values())}
    headings = " | ".join(heading for heading, _ in columns.values())
    lines = [f"| learning rate | {headings} |", "|---" + "|--:" * len(columns) + "|"]
    for name, row in rows.items():
        cells = [name] + [f"{row[key]:{form}}" if row.get(key) else "" for key, (_, form) in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def noise(rows):
    """What the differences in the rows of `compare` are worth. The constant rate, measured twice, shows the noise."""
    constant, again = rows["constant"], rows["constant, again"]
    spread = max(row["spread_us"] / row["us"] for row in (constant, again))
    found = max(abs(again["ratio"] - 1), spread, 0.01)
    largest = max(abs(row["ratio"] - 1) for name, row in rows.items() if name not in ("constant", "constant, again"))
    percent = f"{math.ceil(round(100 * found, 6))} %"
    if found < largest:
        return f"Differences below {percent} are noise: the step with the constant rate varies as much."
    if found < 0.05:
        return f"No difference: all step times agree within the noise, {percent}."
    return (
        f"Too noisy to compare: the step with the constant rate alone varies by {percent}, and no other differs more. "
        "Close other programs and pass more --rounds."
    )
