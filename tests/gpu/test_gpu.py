"""What only a real GPU can show: it gives the CPU's bits, with one launch and no copy, and trains."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CORNERS, CURVES, DTYPES, GPU_MODES, Curve, held_by, schedule_of
from gpu_kernels import gpu_events

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", GPU_MODES)
def test_the_bits_are_the_cpus(mode, dtype):
    curves = held_by(dtype, CURVES if dtype == "float32" else CORNERS)
    assert len(curves) > 20
    for name, curve in curves.items():
        expected = curve.native(curve.steps(), **curve.arguments(dtype=dtype))
        rates = GPU_MODES[mode](curve, curve.steps(), dtype)
        bits = f"u{expected.itemsize}"
        np.testing.assert_array_equal(rates.view(bits), expected.view(bits), err_msg=name)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (33,), (3, 5, 7), (2**21 + 1,)])
def test_any_shape_gets_its_rates_on_the_gpu(shape):
    curve = Curve(warmup_steps=100, total_steps=2**21)
    steps = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    with tf.device("GPU:0"):
        rates = schedule_of(curve)(tf.constant(steps))
    assert "GPU:0" in rates.device
    expected = curve.native(steps, **curve.arguments(dtype="float32"))
    np.testing.assert_array_equal(rates.numpy(), expected, strict=True)


@pytest.mark.parametrize("shape", [(), (1000, 1000), (0,)])
def test_an_evaluation_is_one_launch_and_no_copy(shape):
    schedule = schedule_of(Curve())
    with tf.device("GPU:0"):
        steps = tf.ones(shape, tf.int64)

        def evaluate():
            with tf.device("GPU:0"):
                schedule(steps)

        events = gpu_events(evaluate, 10)
    kernels = 10 if steps.shape.num_elements() else 0
    assert sum(count for name, count in events.items() if "lrops_warmup_decay" in name) == kernels
    assert not [name for name in events if "Memcpy" in name]


# Keras compiles with XLA by default, but not under a strategy. So this tries the XLA lowering and the CUDA kernel.
@pytest.mark.parametrize("strategy", [None, tf.distribute.MirroredStrategy])
def test_it_trains(strategy):
    curve = Curve(warmup_steps=2, total_steps=10)
    schedule = schedule_of(curve)
    with strategy(["GPU:0"]).scope() if strategy else tf.device("GPU:0"):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.1), "mse", jit_compile=strategy is None)
        model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=2, verbose=0)
    assert model.optimizer.iterations.numpy() == 4
    expected = curve.native(np.array(4), **curve.arguments(dtype="float32"))
    assert model.optimizer.learning_rate.numpy() == np.float32(expected)
