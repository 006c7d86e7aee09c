"""Trains with checkpoints. Kill it and start it again: the learning rate goes on at the step that was restored.

It writes each step and the rate that the update took to rates.txt.
"""

import argparse
from pathlib import Path

import keras
import tensorflow as tf

import lrops


def make_optimizer(options):
    """An SGD optimizer: a weight whose gradient is 1 falls by exactly the rate at each step."""
    return keras.optimizers.SGD(lrops.WarmupCosineDecay(0.01, warmup_steps=20, total_steps=options.total_steps))


def by_checkpoint(options):
    """Your own loop, with `tf.train.CheckpointManager`."""
    optimizer, weight = make_optimizer(options), keras.Variable(0.0, dtype="float64")
    optimizer.build([weight])
    checkpoint = tf.train.Checkpoint(optimizer=optimizer, weight=weight.value)
    manager = tf.train.CheckpointManager(checkpoint, options.folder / "checkpoints", max_to_keep=2)
    manager.restore_or_initialize()

    @tf.function
    def step():
        before, count = weight.value + 0.0, optimizer.iterations + 0
        optimizer.apply([tf.constant(1.0, tf.float64)])
        return count, before - weight.value

    with open(options.folder / "rates.txt", "a") as file:
        while optimizer.iterations.numpy() < options.total_steps:
            count, rate = step()
            print(int(count), repr(float(rate)), file=file, flush=True)
            if (int(count) + 1) % options.every == 0:
                manager.save()


class Record(keras.callbacks.Callback):
    """Writes by how much each update lowered the weight."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def on_train_batch_begin(self, batch, logs=None):
        self.before = self.model.trainable_variables[0].numpy().item()

    def on_train_batch_end(self, batch, logs=None):
        rate = self.before - self.model.trainable_variables[0].numpy().item()
        print(int(self.model.optimizer.iterations.numpy()) - 1, repr(rate), file=self.file, flush=True)


@keras.saving.register_keras_serializable("resume")
def prediction(true, predicted):
    """A loss whose gradient is 1."""
    return predicted


def one_weight(options):
    """A model whose loss is its only weight, so that the gradient is 1."""
    keras.config.set_floatx("float64")
    inputs = keras.Input((1,))
    outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, outputs)
    model.compile(make_optimizer(options), prediction)
    return model


def fit(model, options, callbacks, epochs, initial_epoch=0):
    """Trains; an epoch is `every` steps."""
    rows = tf.ones([options.every, 1], tf.float64)
    with open(options.folder / "rates.txt", "a") as file:
        logger = lrops.LearningRateLogger(csv=options.folder / "log.csv")
        callbacks = [*callbacks, Record(file), logger]
        model.fit(rows, rows, batch_size=1, epochs=epochs, initial_epoch=initial_epoch, verbose=0, callbacks=callbacks)


def by_backup(options):
    """`model.fit` with `keras.callbacks.BackupAndRestore`.

    Keras overwrites the last backup. `double_checkpoint` keeps the one before, in case it is killed while it writes.
    """
    backup = keras.callbacks.BackupAndRestore(options.folder / "backup", double_checkpoint=True)
    fit(one_weight(options), options, [backup], options.total_steps // options.every)


def by_keras_file(options):
    """`model.fit` with the whole model, optimizer included, in a `.keras` file after every epoch."""
    path, unfinished = options.folder / "model.keras", options.folder / "unfinished.keras"
    model = keras.saving.load_model(path) if path.exists() else one_weight(options)

    def write(epoch, logs):  # ModelCheckpoint overwrites the last file: killed meanwhile, it would leave none
        model.save(unfinished)
        unfinished.replace(path)

    save = keras.callbacks.LambdaCallback(on_epoch_end=write)
    done = int(model.optimizer.iterations.numpy()) // options.every
    fit(model, options, [save], options.total_steps // options.every, done)


WAYS = {"checkpoint": by_checkpoint, "backup": by_backup, "keras_file": by_keras_file}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS, help="how the run is saved")
    parser.add_argument("--folder", type=Path, default=Path("resume"), help="(default: %(default)s)")
    parser.add_argument("--total-steps", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--every", type=int, default=10, help="steps between two saves (default: %(default)s)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    WAYS[options.way](options)
    print("finished")


if __name__ == "__main__":
    main()
