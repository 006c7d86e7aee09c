"""What a learning rate schedule costs per AdamW step, on the CPU: a constant rate, lrops, and what else one could take.

Run by `make bench`; RESULTS.md holds its tables. It must not time anything before all rows agree in value. Every
figure is the median over rounds in which all rows take turns, so that a drift of the machine hits all alike.
"""

import argparse
import platform
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from rates import ALPHA, PEAK, TOTAL, WARMUP, rates
from tqdm import tqdm

import lrops
from lrops import reference


def check_values():
    """All rows must compute the same curve, to float32's error."""
    for step in (0, 1, 500, 1000, 50_000, 99_000, TOTAL, TOTAL + 1):
        expected = reference.warmup_cosine_decay(step, PEAK, WARMUP, TOTAL, ALPHA)
        for name, rate in rates().items():
            if name != "constant":
                np.testing.assert_allclose(
                    rate(tf.constant(step, tf.int64)), expected, rtol=1e-3, atol=1e-9, err_msg=name
                )


def microseconds(function, seconds):
    """The mean time of a call over about `seconds`."""
    count, start = 0, time.perf_counter()
    while True:
        for _ in range(10):
            function()
        count += 10
        elapsed = time.perf_counter() - start
        if elapsed > seconds:
            return elapsed / count * 1e6


def compare(functions, rounds, seconds, label):
    """name -> (median microseconds, half of the interquartile range), the functions taking turns in each round."""
    times = {name: [] for name in functions}
    for _ in tqdm(range(rounds), desc=label, leave=False):
        for name, function in functions.items():
            times[name].append(microseconds(function, seconds))
    quartiles = {name: statistics.quantiles(values, n=4) for name, values in times.items()}
    return {name: (quartile[1], (quartile[2] - quartile[0]) / 2) for name, quartile in quartiles.items()}


def eager(rounds, seconds):
    """One evaluation, eagerly."""
    step = tf.constant(500, tf.int64)
    op, attributes = lrops.load_ops().lrops_warmup_cosine_decay, rates()["lrops"]._attributes
    functions = {"the bare generated op": lambda: op(step, **attributes)}
    functions |= {name: (lambda rate=rate: rate(step)) for name, rate in rates().items() if name != "constant"}
    results = compare(functions, rounds, seconds, "eager")
    bare = results["the bare generated op"][0]
    print("\n| one evaluation, eager | us | +- | of the bare op |\n|---|---|---|---|")
    for name, (median, spread) in results.items():
        print(f"| {name} | {median:.1f} | {spread:.1f} | {median / bare:.2f} x |")


def training_step(rate, variables, jit_compile):
    """A compiled AdamW step, its first-call time in seconds, and its nodes, functions included."""
    weights = [keras.Variable(np.ones((16, 16), "float32")) for _ in range(variables)]
    gradients = [tf.constant(np.full((16, 16), 1e-3, "float32")) for _ in range(variables)]
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01)
    optimizer.build(weights)
    step = tf.function(lambda: optimizer.apply(gradients), jit_compile=jit_compile)
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    definition = step.get_concrete_function().graph.as_graph_def()
    nodes = len(definition.node) + sum(len(function.node_def) for function in definition.library.function)
    return step, first, nodes


def optimizer_step(variables, jit_compile, rounds, seconds):
    """A whole AdamW step."""
    steps = {name: training_step(rate, variables, jit_compile) for name, rate in rates().items()}
    mode = "XLA" if jit_compile else "graph"
    results = compare({name: step for name, (step, _, _) in steps.items()}, rounds, seconds, f"{mode} {variables}")
    constant, nodes_of_constant = results["constant"][0], steps["constant"][2]
    title = f"AdamW step, {variables} variables, {mode}"
    print(f"\n| {title} | us | +- | over constant | first call, s | nodes over constant |")
    print("|---|---|---|---|---|---|")
    for name, (median, spread) in results.items():
        first, nodes = steps[name][1:]
        over = f"{100 * (median / constant - 1):+.1f} %"
        print(f"| {name} | {median:.0f} | {spread:.0f} | {over} | {first:.2f} | {nodes - nodes_of_constant:+d} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--variables", type=int, nargs="+", default=[10, 100, 300], help="sizes of the optimizer")
    parser.add_argument("--rounds", type=int, default=15, help="rounds in which all rows take turns")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for a row in a round")
    parser.add_argument("--quick", action="store_true", help="100 variables, five short rounds")
    options = parser.parse_args()
    if options.quick:
        options.variables, options.rounds, options.seconds = [100], 5, 0.2
    check_values()
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, lrops {lrops.__version__}, {platform.processor()}")
    eager(options.rounds, options.seconds / 2)
    for jit_compile in (False, True):
        for variables in options.variables:
            optimizer_step(variables, jit_compile, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
