"""Trains a small Vision Transformer on handwritten digits, with warmup and without, and draws what happened.

Both runs start from the same weights and see the same batches; only the first steps of the learning rate differ.
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
    import matplotlib
    import sklearn.datasets
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f"the demo needs {error.name}: run `pip install 'lrops[demo]'`")

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

WITH, WITHOUT = "with warmup", "without warmup"
COLORS = {WITH: "#0072b2", WITHOUT: "#d55e00"}


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


def train(name, schedule, options):
    """A training run: the loss and the rate of every step, and the final loss and accuracy on the test images."""
    keras.utils.set_random_seed(options.seed)
    train_set, (test_images, test_classes) = digits(options.seed)
    model = vision_transformer()
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.05)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(jit_compile=options.jit)
    def step(images, classes):
        rate = optimizer.learning_rate  # what the update below takes
        with tf.GradientTape() as tape:
            loss = loss_of(classes, model(images, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables))
        return loss, rate

    batches = tf.data.Dataset.from_tensor_slices(train_set).shuffle(1437, seed=options.seed)
    batches = batches.repeat().batch(options.batch_size).take(options.total_steps)
    losses, rates = [], []
    with tqdm(batches, total=options.total_steps, desc=f"{name:>14}", unit="step") as progress:
        for images, classes in progress:
            loss, rate = step(images, classes)
            losses.append(float(loss))
            rates.append(float(rate))
            if len(losses) % 20 == 0:
                progress.set_postfix(loss=f"{losses[-1]:.3f}", learning_rate=f"{rates[-1]:.2e}")
    logits = model(test_images)
    right = np.argmax(logits, -1) == test_classes
    return {"losses": losses, "rates": rates, "loss": float(loss_of(test_classes, logits)), "right": right}


def verdict(runs):
    """What warmup changed, in one sentence, from the numbers."""
    diverged = [name for name, run in runs.items() if not np.isfinite(run["loss"])]
    if diverged:
        return f"Training diverged {' and '.join(diverged)}: the test loss is not finite."
    right, right_without = runs[WITH]["right"], runs[WITHOUT]["right"]
    gained, lost = np.sum(right & ~right_without), np.sum(~right & right_without)
    points = 100 * (np.mean(right) - np.mean(right_without))
    # Only the images that the runs disagree on tell them apart. By chance they would fall as coins do: a difference of
    # two standard deviations, 2 * sqrt(disagreements), is not rare enough to be called one (McNemar's test).
    if abs(gained - lost) <= 2 * np.sqrt(gained + lost):
        return f"Warmup made no difference beyond chance: {points:+.1f} points of accuracy on 360 test images."
    return f"Warmup {'gained' if gained > lost else 'lost'} {abs(points):.1f} points of accuracy on 360 test images."


def smoothed(values, width=25):
    """A running mean that starts with what there is."""
    sums = np.cumsum(values)
    counts = np.minimum(np.arange(1, len(values) + 1), width)
    return (sums - np.concatenate([np.zeros(width), sums])[: len(sums)]) / counts


def draw(runs, schedule, path):
    """Both losses above, the rates that were applied below."""
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(9, 7), sharex=True, height_ratios=(3, 2), layout="constrained", dpi=120
    )
    for name, run in runs.items():
        top.plot(run["losses"], color=COLORS[name], alpha=0.2, linewidth=0.8)
        label = f"{name}: test accuracy {100 * np.mean(run['right']):.1f} %"
        top.plot(smoothed(run["losses"]), color=COLORS[name], linewidth=2, label=label)
        bottom.plot(run["rates"], color=COLORS[name], linewidth=2, label=name)
    top.axhline(np.log(10), color="0.4", linestyle=":", linewidth=1.2, label="guessing among ten classes, ln 10")
    top.set_yscale("log")
    top.set_ylabel("training loss (cross entropy, nats)")
    figure.suptitle(verdict(runs), fontsize=13, fontweight="bold")
    top.set_title(
        f"Vision Transformer on handwritten digits, AdamW, peak rate {schedule.initial_learning_rate:g}; "
        "thin: each step, thick: mean of 25",
        fontsize=10,
    )
    bottom.set_ylabel("learning rate applied (per step)")
    bottom.set_xlabel("optimizer step")
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (top, bottom):
        axes.axvspan(0, schedule.warmup_steps, color="0.92", zorder=0, label=f"warmup, {schedule.warmup_steps} steps")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, schedule.total_steps)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, default=3e-3, help="the highest learning rate (default: %(default)s)")
    parser.add_argument("--warmup-steps", type=int, default=300, help="steps to the peak (default: %(default)s)")
    parser.add_argument("--total-steps", type=int, default=1500, help="steps of each run (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="images a step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, split and batches (default: %(default)s)")
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=False, help="compile with XLA")
    parser.add_argument("--output", type=Path, default="demo/vit.png", help="the picture (default: %(default)s)")
    options = parser.parse_args()

    if options.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    try:
        schedules = {
            WITH: lrops.WarmupCosineDecay(options.peak, options.warmup_steps, options.total_steps),
            WITHOUT: lrops.WarmupCosineDecay(options.peak, 0, options.total_steps),  # warns: that is its point here
        }
    except ValueError as error:  # it names the argument, the rule and the value
        parser.error(str(error))
    options.output.parent.mkdir(parents=True, exist_ok=True)  # now: a bad path must not cost a training run
    warmup, total = options.warmup_steps, options.total_steps
    landmarks = {"0": 0, "W/2": warmup // 2, "W": warmup, "T/2": total // 2, "T-1": total - 1, "T": total}
    print(f"\n{'step':>20}" + "".join(f"{name + ' = ' + str(at):>14}" for name, at in landmarks.items()))
    for name, schedule in schedules.items():
        rates = schedule(list(landmarks.values())).numpy()
        print(f"rate {name:>15}" + "".join(f"{rate:>14.4e}" for rate in rates))
    print()

    start = time.perf_counter()
    runs = {name: train(name, schedule, options) for name, schedule in schedules.items()}
    print(f"\nTrained twice in {time.perf_counter() - start:.0f} s.\n")
    print(f"{'':16}{'training loss':>15}{'test loss':>12}{'test accuracy':>16}")
    for name, run in runs.items():
        last = np.mean(run["losses"][-50:])
        print(f"{name:16}{last:>15.4f}{run['loss']:>12.4f}{100 * np.mean(run['right']):>14.1f} %")
    print(f"\n{verdict(runs)}")
    draw(runs, schedules[WITH], options.output)
    print(f"The picture: {options.output}")


if __name__ == "__main__":
    main()
