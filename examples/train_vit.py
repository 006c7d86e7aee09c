"""Trains a small Vision Transformer three times: with warmup by lrops, with Keras' schedule, and without warmup.

The three runs start from the same weights, see the same batches and take turns step by step, so that their step times
can be compared. The script draws the losses and the learning rates.
"""

import argparse
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import lrops

try:
    import matplotlib.figure
    import matplotlib.ticker
    import sklearn.datasets
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f"The demo needs {error.name}: run `pip install matplotlib scikit-learn tqdm`.")

LROPS, KERAS, WITHOUT = "lrops, with warmup", "Keras, with warmup", "lrops, without warmup"
COLORS = {LROPS: "#0072b2", KERAS: "#111111", WITHOUT: "#d55e00"}
ALPHA = 0.001  # floor / peak


def digits(seed):
    """1797 images of 8 x 8 pixels in [0, 1] and their classes, shuffled: (train, test), each (images, classes)."""
    images, classes = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images = (images[order] / 16).reshape(-1, 8, 8, 1).astype("float32")
    classes = classes[order].astype("int32")
    return (images[:1437], classes[:1437]), (images[1437:], classes[1437:])


class AddPosition(keras.layers.Layer):
    """Adds a learned vector to each token."""

    def build(self, shape):
        self.position = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02))

    def call(self, tokens):
        return tokens + self.position


def vision_transformer(width=64, heads=4, blocks=4):
    """Patches of 2 x 2 pixels, post-norm encoder blocks as in Vaswani et al. 2017, mean of the tokens, ten classes."""
    images = keras.Input((8, 8, 1))
    tokens = keras.layers.Conv2D(width, 2, strides=2)(images)
    tokens = AddPosition()(keras.layers.Reshape((16, width))(tokens))
    for _ in range(blocks):
        attended = keras.layers.MultiHeadAttention(heads, width // heads)(tokens, tokens)
        tokens = keras.layers.LayerNormalization()(tokens + attended)
        hidden = keras.layers.Dense(4 * width, activation="gelu")(tokens)
        tokens = keras.layers.LayerNormalization()(tokens + keras.layers.Dense(width)(hidden))
    return keras.Model(images, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling1D()(tokens)))


def schedules(options):
    """The learning rates that are compared, by the name of the run."""
    peak, warmup, total = options.peak, options.warmup_steps, options.total_steps
    made = {
        LROPS: lrops.WarmupCosineDecay(peak, warmup, total, ALPHA),
        WITHOUT: lrops.WarmupCosineDecay(peak, 0, total, ALPHA),
    }
    # Keras counts the decay alone.
    cosine = keras.optimizers.schedules.CosineDecay(0.0, total - warmup, ALPHA, warmup_target=peak, warmup_steps=warmup)
    return {LROPS: made[LROPS], KERAS: cosine, WITHOUT: made[WITHOUT]}


class Run:
    """A model, its optimizer, and what it did at each step."""

    def __init__(self, schedule, options):
        keras.utils.set_random_seed(options.seed)
        self.model = vision_transformer()
        self.optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.05)
        self.optimizer.build(self.model.trainable_variables)
        self.loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.losses, self.rates, self.seconds = [], [], []

        @tf.function(jit_compile=options.jit)
        def update(images, classes):
            rate = self.optimizer.learning_rate  # what the update below takes
            with tf.GradientTape() as tape:
                loss = self.loss_of(classes, self.model(images, training=True))
            self.optimizer.apply(tape.gradient(loss, self.model.trainable_variables))
            return loss, rate

        self.update = update

    def step(self, images, classes):
        """Takes one step and records it."""
        start = time.perf_counter()
        loss, rate = (float(value) for value in self.update(images, classes))  # waits until the step is done
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(loss)
        self.rates.append(rate)

    def test(self, images, classes):
        """The loss on other images, and which of them are classified right."""
        logits = self.model(images)
        self.loss = float(self.loss_of(classes, logits))
        self.right = np.argmax(logits, -1) == classes


def train(schedules, options):
    """Trains with each schedule. The runs take turns at every batch, and each is the first equally often."""
    train_set, test_set = digits(options.seed)
    runs = {name: Run(schedule, options) for name, schedule in schedules.items()}
    batches = tf.data.Dataset.from_tensor_slices(train_set).shuffle(len(train_set[0]), seed=options.seed)
    batches = batches.repeat().batch(options.batch_size).take(options.total_steps)
    order = list(runs.values())
    for images, classes in tqdm(batches, total=options.total_steps, desc="three runs", unit="step"):
        for run in order:
            run.step(images, classes)
        order.append(order.pop(0))
    for run in runs.values():
        run.test(*test_set)
    return runs


def gained(run, other):
    """How many more images `run` classifies right than `other`: 0 if that is not beyond chance.

    Only the images that the runs disagree on tell them apart. By chance they would fall as coins do: a difference of
    two standard deviations, 2 * sqrt(disagreements), is not rare enough to be called one (McNemar's test).
    """
    more, less = np.sum(run.right & ~other.right), np.sum(~run.right & other.right)
    return 0 if abs(more - less) <= 2 * np.sqrt(more + less) else int(more - less)


def verdict(runs):
    """What warmup changed, in one sentence, from the numbers."""
    diverged = [name for name, run in runs.items() if not np.isfinite(run.loss)]
    if diverged:
        return f"Training diverged ({'; '.join(diverged)}): the test loss is not finite."
    right, right_without = runs[LROPS].right, runs[WITHOUT].right
    points, images = 100 * (np.mean(right) - np.mean(right_without)), len(right)
    changed = gained(runs[LROPS], runs[WITHOUT])
    if not changed:
        return f"Warmup made no difference beyond chance: {points:+.1f} points of accuracy on {images} test images."
    return f"Warmup {'gained' if changed > 0 else 'lost'} {abs(points):.1f} points of accuracy on {images} test images."


def headline(runs):
    """The title of the picture."""
    if gained(runs[LROPS], runs[WITHOUT]) > 0 and not gained(runs[LROPS], runs[KERAS]):
        return "The same curve, the same result: warmup is what matters"
    return verdict(runs)


def milliseconds(run):
    """The quartiles of the step time, without the first step, which traces and compiles."""
    return np.quantile(run.seconds[1:], [0.25, 0.5, 0.75]) * 1e3


def times_lrops(run, lrops_run):
    """The step time over that of `lrops_run`: the median over the steps."""
    return float(np.median(np.divide(run.seconds[1:], lrops_run.seconds[1:])))


def cost(runs):
    """What a step costs with Keras' schedule, in one sentence. The two runs of lrops show the noise."""
    ratio, noise = (times_lrops(runs[name], runs[LROPS]) for name in (KERAS, WITHOUT))
    said = f"A step with Keras' CosineDecay takes {ratio:.2f} times as long as with lrops"
    if abs(ratio - 1) <= max(0.01, abs(noise - 1)):
        return said + ": no difference beyond the noise of this machine."
    return said + "."


def agreement(runs):
    """How far the rates of the two curves with warmup differ, in one sentence."""
    ours, theirs = np.array(runs[LROPS].rates), np.array(runs[KERAS].rates)
    apart = np.max(np.abs(ours - theirs)) / np.max(ours)
    return f"Keras' rates and those of lrops differ by at most {apart:.0e} of the peak, which is rounding error."


def smoothed(values, width=25):
    """A running mean that starts with what there is."""
    sums = np.cumsum(values)
    counts = np.minimum(np.arange(1, len(values) + 1), width)
    return (sums - np.concatenate([np.zeros(width), sums])[: len(sums)]) / counts


def draw(runs, options):
    """The losses above; below, the rates that were applied."""
    figure = matplotlib.figure.Figure(figsize=(9, 7), layout="constrained", dpi=240)
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for name, run in runs.items():
        # Two runs lie over each other: the line below is wider.
        style = {"color": COLORS[name], "linewidth": 1 if name == KERAS else 3, "zorder": 4 if name == KERAS else 3}
        loss.plot(run.losses, color=COLORS[name], alpha=0.15, linewidth=0.6, zorder=2)
        loss.plot(smoothed(run.losses), label=f"{name}: {100 * np.mean(run.right):.1f} %", **style)
        rate.plot(run.rates, **style)
    equal = "" if gained(runs[LROPS], runs[KERAS]) else "\nThe two with warmup are equal within chance."
    loss.legend(
        title=f"Classified right, of {len(runs[LROPS].right)} test images (one seed).{equal}",
        loc="center right",
        bbox_to_anchor=(1, 0.7),
    )
    loss.set_yscale("log")
    loss.set_ylabel("training loss (cross entropy, nats)")
    loss.set_title(
        f"Vision Transformer on handwritten digits, AdamW, peak rate {options.peak:g}. Bold: mean of 25 steps",
        fontsize=9.5,
    )
    figure.suptitle(headline(runs), fontsize=13, fontweight="bold")
    rate.set_title("The two curves with warmup are the same", fontsize=9.5)
    rate.set_ylabel("learning rate")
    rate.set_ylim(0, 1.1 * options.peak)
    rate.set_xlim(0, options.total_steps)
    rate.set_xlabel("optimizer step")
    for panel in (loss, rate):
        panel.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        panel.axvspan(0, options.warmup_steps, color="0.93", linewidth=0, zorder=0)
        panel.grid(axis="y", color="0.88", linewidth=0.6, zorder=1)
        panel.spines[["top", "right"]].set_visible(False)
    loss.text(options.warmup_steps / 2, 0.02, "warmup", transform=loss.get_xaxis_transform(), ha="center", color="0.4")
    figure.savefig(options.output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, default=3e-3, help="the highest learning rate (default: %(default)s)")
    parser.add_argument("--warmup-steps", type=int, default=200, help="steps to the peak (default: %(default)s)")
    parser.add_argument("--total-steps", type=int, default=800, help="steps of each run (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="images a step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, split and batches (default: %(default)s)")
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=False, help="compile with XLA")
    parser.add_argument("--output", type=Path, default="demo/vit.png", help="the picture (default: %(default)s)")
    options = parser.parse_args()

    if options.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    try:
        rates = schedules(options)
    except ValueError as error:  # it names the argument, the rule and the value
        parser.error(str(error))
    options.output.parent.mkdir(parents=True, exist_ok=True)  # now: a bad path must not cost a training run
    warmup, total = options.warmup_steps, options.total_steps
    steps = [0, warmup // 2, warmup, total // 2, total - 1, total]
    print(f"\n{'learning rate at step':<24}" + "".join(f"{step:>12,}" for step in steps))
    for name, schedule in rates.items():
        print(f"{name:<24}" + "".join(f"{float(schedule(step)):>12.4e}" for step in steps))
    print()

    start = time.perf_counter()
    runs = train(rates, options)
    print(f"\nTrained three times in {time.perf_counter() - start:.0f} s.\n")
    print(f"{'':24}{'training loss':>15}{'test loss':>12}{'test accuracy':>16}{'step time':>12}{'first step':>13}")
    for name, run in runs.items():
        last, (_, step, _) = np.mean(run.losses[-50:]), milliseconds(run)
        print(
            f"{name:<24}{last:>15.4f}{run.loss:>12.4f}{100 * np.mean(run.right):>14.1f} %"
            f"{step:>9.1f} ms{run.seconds[0]:>11.1f} s"
        )
    print(f"\n{verdict(runs)}\n{agreement(runs)}\n{cost(runs)}")
    draw(runs, options)
    print(f"The picture: {options.output}")


if __name__ == "__main__":
    main()
