"""The learning rates that the benchmarks compare: one curve, by everything that could compute it.

Imported by overhead.py and gpu_overhead.py. It must not time anything.
"""

import math

import keras
import tensorflow as tf

import lrops

PEAK, WARMUP, TOTAL, ALPHA = 1e-3, 1000, 100_000, 0.001


class HandWritten(keras.optimizers.schedules.LearningRateSchedule):
    """The same curve in TensorFlow's ops, without a branch, as tutorials give it."""

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        progress = tf.clip_by_value((step - WARMUP) / (TOTAL - WARMUP), 0.0, 1.0)
        decay = ALPHA + (1 - ALPHA) * 0.5 * (1 + tf.cos(math.pi * progress))
        return PEAK * tf.where(step < WARMUP, step / WARMUP, decay)

    def get_config(self):
        return {}


def rates():
    """Every rate under comparison: name -> what an optimizer takes as `learning_rate`."""
    return {
        "constant": PEAK,
        "lrops": lrops.WarmupCosineDecay(PEAK, WARMUP, TOTAL, ALPHA),
        "Keras CosineDecay, warmup": keras.optimizers.schedules.CosineDecay(
            0.0, TOTAL - WARMUP, ALPHA, warmup_target=PEAK, warmup_steps=WARMUP
        ),
        "hand-written, tf.where": HandWritten(),
    }
