"""Real libraries whose optimizers pass a float32 step to a schedule. Tests skip those not installed; CI installs none.

Each must move its weights as it does with a table of the same rates, which is read at the float32 step.
"""

import importlib.util

import pytest
from processes import run_python

SETUP = """
import numpy as np, tensorflow as tf, tf_keras, lrops

def train(make):
    weights = [tf.Variable([1.0, -2.0], name="dense/kernel"), tf.Variable([[3.0]], name="embedding")]
    optimizer = make(weights)

    @tf.function
    def step():
        optimizer.apply_gradients([(0.1 * tf.ones_like(weight), weight) for weight in weights])

    for _ in range(12):
        step()
    return [weight.numpy() for weight in weights]

class Table(tf_keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return tf.gather(tf.constant(schedule.on_host(np.arange(50))), tf.cast(step, tf.int64))

schedule = lrops.WarmupCosineDecay(0.1, 4, 40, warmup_start=0.25)
for name, make in clients().items():
    ours, theirs = train(lambda weights: make(schedule, weights)), train(lambda weights: make(Table(), weights))
    assert not np.array_equal(ours[0], [1.0, -2.0]), name
    assert all(map(np.array_equal, ours, theirs)), (name, ours, theirs)
    print(name)
"""
CLIENTS = {
    "transformers": """
def clients():
    from transformers.optimization_tf import AdamWeightDecay
    return {"AdamWeightDecay": lambda rate, weights: AdamWeightDecay(rate, weight_decay_rate=0.1)}
""",
    "official": """
def clients():
    from official.modeling.optimization import OptimizationConfig, optimizer_factory
    def make(rate, kind):
        config = {"optimizer": {"type": kind}, "learning_rate": {"type": "constant"}}
        return optimizer_factory.OptimizerFactory(OptimizationConfig(config)).build_optimizer(rate)
    kinds = ("sgd", "adam", "rmsprop", "adagrad", "adamw", "lamb", "lars")
    return {kind: lambda rate, weights, kind=kind: make(rate, kind) for kind in kinds}
""",
    "tensorflow_recommenders": """
def clients():
    from tensorflow_recommenders.experimental.optimizers import CompositeOptimizer
    legacy = __import__("tf_keras").optimizers.legacy
    return {"CompositeOptimizer": lambda rate, weights: CompositeOptimizer(
        [(legacy.SGD(rate), lambda: weights[:1]), (legacy.Adam(rate), lambda: weights[1:])])}
""",
    "larq": """
def clients():
    import larq
    legacy = __import__("tf_keras").optimizers.legacy
    return {"CaseOptimizer": lambda rate, weights: larq.optimizers.CaseOptimizer(
        (lambda weight: "kernel" in weight.name, legacy.SGD(rate)), default_optimizer=legacy.Adam(rate))}
""",
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client(name, tmp_path):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    result = run_python("-c", CLIENTS[name] + SETUP, folder=tmp_path, TF_USE_LEGACY_KERAS="1")
    assert result.returncode == 0 and len(result.stdout.split()) >= 1, result.stderr
