"""Several machines in `model.fit`: `MultiWorkerMirroredStrategy` under tf_keras; Keras 3's `fit` refuses several.

Run it once on each worker, with TF_CONFIG as TensorFlow documents it, and again after a crash.
"""

import argparse
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

import lrops


class Recorder(keras.callbacks.Callback):
    """Writes the rate that each step took: the weight falls by it, where its gradient is 1."""

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
    parser.add_argument("folder", type=Path, help="for checkpoints and rates; the same for all workers")
    parser.add_argument("--total-steps", type=int, default=99, help="(default: %(default)s)")
    options = parser.parse_args()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # first: it connects the workers
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
