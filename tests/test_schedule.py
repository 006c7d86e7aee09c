"""What all curves share under Keras 3: the steps that they accept, the saved form, the graph's nodes, and training."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Curve, Decay, InverseSqrt, Restarts, schedule_of
from training import count, dense_model, fit, nodes

import lrops
from lrops import reference

CURVE = Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40)
EXPECTED = reference.warmup_decay(np.arange(60), **CURVE.arguments())
SHARED = {"initial_learning_rate": 0.01, "warmup_steps": 8}
CASES = {
    "cosine": CURVE,
    "cosine_of_fractions": Curve(alpha=1 / 3, warmup_start=0.1, hold_steps=7, start_step=-1),
    "linear": Decay(**SHARED, total_steps=40, decay="linear"),
    "minus_sqrt": Decay(**SHARED, total_steps=40, decay="minus_sqrt"),
    "inverse_sqrt": InverseSqrt(**SHARED),
    "restarts": Restarts(**SHARED, first_decay_steps=8, m_mul=0.5),
    "restarts_counted": Restarts(first_decay_steps=8, t_mul=1.1, cycles=3, alpha=1 / 3, warmup_steps=8),
}
every_case = pytest.mark.parametrize("curve", CASES.values(), ids=CASES)


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


def test_the_step_has_no_gradient():
    step = tf.Variable(5, dtype=tf.int64)
    weight = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        loss = schedule_of(CURVE)(step) * weight
    assert tape.gradient(loss, [weight, step]) == [EXPECTED[5], None]


def test_it_vectorizes():
    rates = tf.vectorized_map(schedule_of(CURVE), tf.range(60, dtype=tf.int64))
    assert rates.numpy().tobytes() == EXPECTED.tobytes()


@every_case
def test_config_goes_through_json_and_back(curve):
    schedule = schedule_of(curve, "float64")
    config = json.loads(json.dumps(schedule.get_config()))
    assert config == curve.arguments() | {"dtype": "float64", "name": curve.schedule.__name__}
    saved = keras.saving.serialize_keras_object(schedule)
    assert saved["registered_name"] == f"lrops>{curve.schedule.__name__}"
    for again in (curve.schedule.from_config(config), keras.saving.deserialize_keras_object(saved)):
        assert type(again) is curve.schedule and vars(again) == vars(schedule)
    assert vars(eval(repr(schedule))) == vars(schedule)  # noqa: S307


@every_case
def test_an_evaluation_is_one_node_whose_shape_is_known(curve):
    function, steps = tf.function(schedule_of(curve)), tf.TensorSpec([None, 3], tf.int64)
    found = [node.op for node in nodes(function, steps) if node.op not in ("Placeholder", "Identity", "NoOp")]
    assert found == ["Lrops>" + curve.schedule.__name__.replace("CosineDecay", "Decay")]
    assert function.get_concrete_function(steps).output_shapes.as_list() == [None, 3]


@every_case
def test_it_trains_is_logged_and_goes_through_a_keras_file(curve, tmp_path):
    model = dense_model(keras.optimizers.AdamW(schedule_of(curve)))
    history = fit(model, lrops.LearningRateLogger(), epochs=3).history
    rates = curve.reference(np.arange(31), **curve.arguments())
    assert history["learning_rate"] == rates[9:30:10].tolist()  # by the last batch of each epoch
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert count(again) == 30 and float(again.learning_rate) == rates[30]


@every_case
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_variable_holds_the_peak(curve, jit_compile):
    peak, steps = tf.Variable(0.5), [0, 4, 8, 12, 16, 24, 32]
    schedule = curve.schedule(**curve.arguments(initial_learning_rate=peak))
    rates = tf.function(schedule.__call__, jit_compile=jit_compile)
    for value in (0.5, 0.25):
        peak.assign(value)
        expected = curve.reference(steps, **curve.arguments(initial_learning_rate=value)).tolist()
        assert rates(tf.constant(steps)).numpy().tolist() == schedule.on_host(steps).tolist() == expected
