"""Ten million evaluations from eight threads and 200,000 training steps: no wrong value, no growth in memory.

It takes some minutes; --scale shortens it.
"""

import argparse
import concurrent.futures
import sys

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

import lrops
from lrops import reference

CURVE = {"initial_learning_rate": 1e-3, "warmup_steps": 1000, "total_steps": 150_000}
THREADS = 8


def memory():
    """What the process holds now, in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def evaluate(schedule, expected, rounds):
    """One thread's part: scalars, and arrays of 997, eagerly. The number of rates that were wrong."""
    wrong = 0
    for start in range(rounds):
        steps = np.arange(start, start + 997) % len(expected)
        wrong += np.count_nonzero(schedule(steps).numpy() != expected[steps])
        wrong += schedule(tf.constant(steps[0], tf.int64)).numpy() != expected[steps[0]]
    return wrong


def train(schedule, expected, calls, progress):
    """200 steps a call, in a loop in the graph. The number of steps whose rate was wrong."""
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01)
    weights = [keras.Variable(np.ones(4, "float32")) for _ in range(3)]
    optimizer.build(weights)
    expected = tf.constant(expected)

    @tf.function
    def steps():
        wrong = 0
        for _ in tf.range(200):
            wrong += tf.cast(optimizer.learning_rate != tf.gather(expected, optimizer.iterations.value), tf.int32)
            optimizer.apply([tf.ones(4)] * 3)
        return wrong

    wrong = 0
    for _ in range(calls):
        wrong += int(steps())
        progress.update()
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=1.0, help="part of the whole (default: %(default)s)")
    options = parser.parse_args()
    schedule = lrops.WarmupCosineDecay(**CURVE)
    expected = reference.warmup_decay(np.arange(200_001), **CURVE)
    rounds, calls = int(1253 * options.scale), int(1000 * options.scale)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        before, wrong, count = None, 0, 0
        for _ in tqdm(range(10), desc="evaluations"):
            wrong += sum(pool.map(lambda _: evaluate(schedule, expected, rounds // 10), range(THREADS)))
            count += THREADS * (rounds // 10) * 998
            before = before or memory()  # after the first tenth, which fills the caches
    print(f"{count:,} evaluations from {THREADS} threads: {wrong} wrong, {memory() - before:+.1f} MiB")
    with tqdm(total=calls, desc="training, 200 steps") as progress:
        failed = train(schedule, expected, calls // 10, progress)
        before = memory()
        failed += train(schedule, expected, calls - calls // 10, progress)
    growth = memory() - before
    print(f"{calls * 200:,} training steps: {failed} with a wrong rate, {growth:+.1f} MiB")
    sys.exit(1 if wrong or failed or growth > 64 else 0)


if __name__ == "__main__":
    main()
