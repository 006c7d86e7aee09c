"""Trains on all devices of one machine with `MirroredStrategy`. Every replica takes the rate of the same step.

Without GPUs, the CPU is split into two devices. The script prints, for each step, the rate that each replica took, and
the rate of the next step.
"""

import argparse

import keras
import tensorflow as tf

import lrops


def devices():
    """All GPUs, or the CPU as two devices."""
    gpus = tf.config.list_logical_devices("GPU")
    return [device.name for device in gpus] or ["CPU:0", "CPU:1"]


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not tf.config.list_physical_devices("GPU"):
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(devices())
    with strategy.scope():
        schedule = lrops.WarmupCosineDecay(0.01, warmup_steps=8, total_steps=40)
        optimizer = keras.optimizers.SGD(schedule)
        weight = keras.Variable(0.0, dtype="float64")  # its gradient is 1, so it falls by the rate
        optimizer.build([weight])

    @tf.function
    def step():
        def replica():
            before = weight.value + 0.0
            # The gradients of all replicas are added up to 1.
            optimizer.apply([tf.constant(1.0 / strategy.num_replicas_in_sync, tf.float64)])
            return before - weight.value, optimizer.learning_rate

        return tf.nest.map_structure(strategy.experimental_local_results, strategy.run(replica))

    for count in range(50):
        taken, following = step()
        print(count, [float(rate) for rate in taken], [float(rate) for rate in following])
    print("steps", int(optimizer.iterations.numpy()))


if __name__ == "__main__":
    main()
