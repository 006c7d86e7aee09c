"""Exports a training step that holds the op, and loads it in another process, with and without lrops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Curve, schedule_of
from processes import run_snippet

from lrops import reference

CURVE = Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40)
RATES = reference.warmup_decay(np.arange(60), **CURVE.arguments()).astype(np.float64)
LOAD = """
import tensorflow as tf
module = tf.saved_model.load("model")
for _ in range(30):
    print(repr(float(module.step())))
"""


@pytest.fixture
def exported(tmp_path):
    optimizer = keras.optimizers.AdamW(schedule_of(CURVE), weight_decay=0.1)
    weights = [keras.Variable(np.ones(3, "float32")) for _ in range(3)]
    optimizer.build(weights)
    module = tf.Module()
    module.variables_of_it = [variable.value for variable in [*weights, *optimizer.variables]]

    @tf.function(input_signature=[])
    def step():
        rate = optimizer.learning_rate
        optimizer.apply([tf.ones(3)] * 3)
        return rate

    module.step = step
    for _ in range(5):
        step()
    tf.saved_model.save(module, tmp_path / "model")
    return tmp_path


def test_it_goes_on_where_it_was(exported):
    result = run_snippet("import lrops" + LOAD, folder=exported)
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal([float(line) for line in result.stdout.split()], RATES[5:35])


def test_without_lrops_the_error_names_the_op(exported):
    result = run_snippet(LOAD, folder=exported)
    assert result.returncode == 1
    assert "Lrops>WarmupDecay" in result.stderr.strip().splitlines()[-1], result.stderr
