"""Keras 3, tf_keras, and tf.keras set to either, each in its own process, as a user starts it."""

import re

import pytest
from conftest import run_python

TRAIN = """
schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
base = keras.optimizers.schedules.LearningRateSchedule
assert isinstance(schedule, base) and issubclass(lrops.WarmupCosineRestarts, base)
model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])
model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.1), "mse")
rows = np.ones((32, 4), "float32")
model.fit(rows, rows[:, :1], batch_size=8, epochs=3, verbose=0)
assert int(model.optimizer.iterations.numpy()) == 12
# Keras 3 shows the next update's rate, tf_keras the last one's.
shown = 11 if keras.__name__.startswith("tf_keras") else 12
expected = reference.warmup_cosine_decay(shown, 0.01, 8, 40)
assert np.asarray(model.optimizer.learning_rate) == expected
model.save("model.keras")
again = keras.models.load_model("model.keras")
assert int(again.optimizer.iterations.numpy()) == 12
assert again.optimizer.get_config()["learning_rate"] == model.optimizer.get_config()["learning_rate"]
print("trained with", keras.__name__)
"""
NUMPY = "import numpy as np\n"
LROPS = "import lrops\nfrom lrops import reference\n"
STARTS = {
    "keras_first": ("import keras\n" + LROPS, {}, "keras"),
    "lrops_first": (LROPS + "import keras\n", {}, "keras"),
    "tf_keras_attribute": (LROPS + "import tensorflow as tf\nkeras = tf.keras\n", {}, "keras"),
    "tf_keras_first": ("import tf_keras as keras\n" + LROPS, {}, "tf_keras"),
    "tf_keras_after_lrops": (LROPS + "import tf_keras as keras\n", {}, "tf_keras"),
    "legacy": (LROPS + "import tensorflow as tf\nkeras = tf.keras\n", {"TF_USE_LEGACY_KERAS": "1"}, "tf_keras"),
    "both": ("import tf_keras\nimport keras\n" + LROPS, {}, "keras"),
    # Only tf_keras: Keras 3 cannot be imported.
    "no_keras": (
        "import sys\nsys.modules['keras'] = None\nimport tf_keras as keras\n" + LROPS,
        {"TF_USE_LEGACY_KERAS": "1"},
        "tf_keras",
    ),
    "no_tf_keras": ("import sys\nsys.modules['tf_keras'] = None\nimport keras\n" + LROPS, {}, "keras"),
}


@pytest.mark.parametrize("start", STARTS)
def test_trains(start, tmp_path):
    imports, environment, keras = STARTS[start]
    result = run_python("-c", NUMPY + imports + TRAIN, folder=tmp_path, **environment)
    assert result.returncode == 0, result.stderr
    assert f"trained with {keras}" in result.stdout.replace("keras.api", "keras").replace("_tf_keras.", "")


def test_a_keras_that_comes_after_the_schedule_is_told_so(tmp_path):
    script = LROPS + (
        "schedule = lrops.WarmupCosineDecay(0.01, 8, 40)\n"
        "import tf_keras\n"
        "optimizer = tf_keras.optimizers.AdamW(schedule)\n"
        "optimizer.build([])\n"
        "print(optimizer.learning_rate)\n"
        "import tensorflow as tf\n"
        "weight = tf.Variable(1.0)\n"
        "optimizer.apply_gradients([(tf.constant(1.0), weight)])\n"
    )
    result = run_python("-c", script, folder=tmp_path)
    assert result.returncode != 0
    assert "import keras (or tf_keras) before you make the schedule" in result.stderr, result.stderr


def test_keras_on_another_backend(tmp_path):
    script = (
        "import keras, lrops, numpy as np\n"
        "model = keras.Sequential([keras.layers.Dense(1)])\n"
        "model.compile(keras.optimizers.AdamW(lrops.WarmupCosineDecay(0.01, 8, 40)), 'mse')\n"
        "model.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0)\n"
    )
    result = run_python("-c", script, folder=tmp_path, KERAS_BACKEND="jax")
    assert result.returncode == 1, result
    assert re.search("^TypeError: lrops runs on TensorFlow.*KERAS_BACKEND=tensorflow.* of jax$", result.stderr, re.M)
