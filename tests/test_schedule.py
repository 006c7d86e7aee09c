"""The schedule under Keras 3: the steps that it accepts, how it is saved, its graph nodes, and training."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Curve, schedule_of

import lrops
from lrops import reference

CURVE = Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40)
EXPECTED = reference.warmup_decay(np.arange(60), **CURVE.arguments())


KINDS = {
    "numpy": np.asarray,
    "numpy_int32": np.int32,
    "numpy_uint8": np.uint8,
    "tensor": lambda steps: tf.constant(steps, tf.int64),
    "tensor_int32": lambda steps: tf.constant(steps, tf.int32),
    "tensor_uint16": lambda steps: tf.constant(steps, tf.uint16),
    "tf_variable": lambda steps: tf.Variable(steps, dtype=tf.int64),
    "tf_variable_int32": lambda steps: tf.Variable(steps, dtype=tf.int32),
    "keras_variable": lambda steps: keras.Variable(steps, dtype="int64"),
    "keras_variable_int32": lambda steps: keras.Variable(steps, dtype="int32"),
    "list": np.ndarray.tolist,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_every_kind_of_step(kind, shape):
    step = KINDS[kind](np.full(shape, 5))
    for call in (schedule_of(CURVE), tf.function(schedule_of(CURVE))):
        rate = call(step)
        assert rate.shape == shape and rate.dtype == tf.float32
        assert (rate.numpy() == EXPECTED[5]).all()


def test_config_goes_through_json_and_back():
    for curve in (CURVE, Curve(alpha=1 / 3, warmup_start=0.1, hold_steps=7, start_step=-1)):
        schedule = schedule_of(curve, "float64")
        config = json.loads(json.dumps(schedule.get_config()))
        again = lrops.WarmupCosineDecay.from_config(config)
        assert again.get_config() == schedule.get_config() == curve.arguments(dtype="float64", name="WarmupCosineDecay")
        assert vars(again) == vars(schedule)
        assert eval(repr(again), {"lrops": lrops}).get_config() == config  # noqa: S307

    assert keras.saving.serialize_keras_object(schedule)["registered_name"] == "lrops>WarmupCosineDecay"
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert isinstance(again, lrops.WarmupCosineDecay) and again.get_config() == config


def test_a_repr_needs_no_config():
    class NoConfig(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

        def __repr__(self):
            return "NoConfig()"

    expected = "lrops.LinearWarmup(schedule=NoConfig(), warmup_steps=5"
    assert repr(lrops.LinearWarmup(NoConfig(), 5)).startswith(expected)


def test_a_running_optimizer_survives_a_keras_file(tmp_path):
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype("float32"), np.zeros((64, 1), "float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile(keras.optimizers.AdamW(schedule_of(CURVE)), "mse")
    model.fit(*rows, batch_size=8, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations.numpy()) == 16
    assert float(again.optimizer.learning_rate) == EXPECTED[16]
    for one in (model, again):
        one.fit(*rows, batch_size=8, epochs=1, verbose=0, shuffle=False)
    for left, right in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_an_evaluation_is_one_node_whose_shape_is_known():
    iterations = keras.Variable(3, dtype="int64")
    for schedule, arguments, expected in (
        (schedule_of(CURVE), [tf.TensorSpec([None, 3], tf.int64)], {"Lrops>WarmupDecay"}),
        (lambda: schedule_of(CURVE)(iterations), [], {"Lrops>WarmupDecay", "ReadVariableOp"}),
    ):
        function = tf.function(schedule).get_concrete_function(*arguments)
        types = [node.type for node in function.graph.get_operations()]
        assert sorted(set(types) - {"Placeholder", "Identity", "NoOp"}) == sorted(expected)
        assert types.count("Lrops>WarmupDecay") == 1
        assert function.output_shapes.as_list() == ([None, 3] if arguments else [])


def test_the_step_has_no_gradient():
    step = tf.Variable(5, dtype=tf.int64)
    weight = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        loss = schedule_of(CURVE)(step) * weight
    assert tape.gradient(loss, [weight, step]) == [EXPECTED[5], None]


def test_it_maps_over_a_dataset_and_vectorizes():
    steps = tf.data.Dataset.range(60).map(schedule_of(CURVE), num_parallel_calls=2)
    assert [rate.numpy() for rate in steps] == EXPECTED.tolist()
    rates = tf.vectorized_map(schedule_of(CURVE), tf.range(60, dtype=tf.int64))
    assert rates.numpy().tobytes() == EXPECTED.tobytes()
