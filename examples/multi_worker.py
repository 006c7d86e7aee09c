"""Trains on several machines with `MultiWorkerMirroredStrategy`, in your own loop.

Start it on each worker, with the variable TF_CONFIG; docs/distributed.md shows how. Start it again after a crash: it
restores the last checkpoint. (The `fit` of Keras 3 rejects several workers.)
"""

import argparse
import os
import sys
from pathlib import Path

import keras
import tensorflow as tf

import lrops


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for checkpoints and rates; all workers share it")
    parser.add_argument("--total-steps", type=int, default=100, help="(default: %(default)s)")
    options = parser.parse_args()
    if "TF_CONFIG" not in os.environ:
        sys.exit("TF_CONFIG is not set. It must name all workers and this one: docs/distributed.md shows how.")
    options.folder.mkdir(parents=True, exist_ok=True)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else: it connects the workers
    worker = strategy.cluster_resolver.task_id
    with strategy.scope():
        schedule = lrops.WarmupCosineDecay(0.01, warmup_steps=20, total_steps=options.total_steps)
        optimizer = keras.optimizers.SGD(schedule)
        weight = keras.Variable(0.0, dtype="float64")  # its gradient is 1, so it falls by the rate
        optimizer.build([weight])
    checkpoint = tf.train.Checkpoint(optimizer=optimizer, weight=weight.value)
    # Every worker has to save, but only the checkpoint of the first is restored.
    folder = options.folder / ("checkpoints" if worker == 0 else f"checkpoints-of-{worker}")
    manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)
    checkpoint.restore(tf.train.latest_checkpoint(options.folder / "checkpoints"))

    @tf.function
    def step():
        def replica():
            before, count = weight.value + 0.0, optimizer.iterations + 0
            optimizer.apply([tf.constant(1.0 / strategy.num_replicas_in_sync, tf.float64)])
            return count, before - weight.value

        return strategy.run(replica)

    with open(options.folder / f"rates-{worker}.txt", "a") as file:
        while optimizer.iterations.numpy() < options.total_steps:
            count, rate = step()
            print(int(count), repr(float(rate)), file=file, flush=True)
            if (int(count) + 1) % 10 == 0:
                manager.save()
    print("finished", repr(float(weight.numpy())))


if __name__ == "__main__":
    main()
