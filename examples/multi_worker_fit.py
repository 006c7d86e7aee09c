"""Trains on several machines with `MultiWorkerMirroredStrategy`, in `model.fit` of tf_keras.

Start it on each worker, with the variable TF_CONFIG; docs/distributed.md shows how. Start it again after a crash: it
restores the last backup. (The `fit` of Keras 3 rejects several workers.)
"""

import argparse
import os
import sys
from pathlib import Path

import tensorflow as tf

import lrops

try:
    import tf_keras as keras
except ImportError:
    sys.exit(
        f"tf_keras is not installed: run `pip install --no-deps 'tf_keras=={tf.__version__.rpartition('.')[0]}.*'`."
    )


class Recorder(keras.callbacks.Callback):
    """Writes the rate that each step took. The gradient is 1, so the weight falls by the rate."""

    def __init__(self, path):
        super().__init__()
        self.file = open(path, "a")

    def on_train_batch_begin(self, batch, logs=None):
        self.before = self.model.trainable_weights[0].numpy().item()

    def on_train_batch_end(self, batch, logs=None):
        step = self.model.optimizer.iterations.numpy() - 1
        print(step, repr(self.before - self.model.trainable_weights[0].numpy().item()), file=self.file, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for backups and rates; all workers share it")
    parser.add_argument("--total-steps", type=int, default=99, help="(default: %(default)s)")
    options = parser.parse_args()
    if "TF_CONFIG" not in os.environ:
        sys.exit("TF_CONFIG is not set. It must name all workers and this one: docs/distributed.md shows how.")
    options.folder.mkdir(parents=True, exist_ok=True)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else: it connects the workers
    replicas = strategy.num_replicas_in_sync
    epochs = 3
    with strategy.scope():
        schedule = lrops.WarmupCosineDecay(0.01, warmup_steps=20, total_steps=options.total_steps)
        weight = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", dtype="float64", input_shape=(1,))
        model = keras.Sequential([weight])
        model.compile(keras.optimizers.SGD(schedule), loss=lambda truth, prediction: prediction, jit_compile=False)
    ones = tf.ones([options.total_steps // epochs * replicas, 1], tf.float64)
    model.fit(
        tf.data.Dataset.from_tensor_slices((ones, ones)).batch(replicas),  # one example for each replica
        epochs=epochs,
        verbose=0,
        callbacks=[
            Recorder(options.folder / f"rates-{strategy.cluster_resolver.task_id}.txt"),
            keras.callbacks.BackupAndRestore(str(options.folder / "backup"), save_freq=10, delete_checkpoint=False),
        ],
    )
    print("finished", repr(weight.kernel.numpy().item()))


if __name__ == "__main__":
    main()
