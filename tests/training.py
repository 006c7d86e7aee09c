"""What tests of training and of traced functions share.

Small models and optimizers of Keras 3 and tf_keras (`K` is the module) that show which rates were applied, the nodes of
a function, and ways to write a variable.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import lrops
from lrops import reference

ARGUMENTS = (0.01, 8, 40)
EXPECTED = reference.warmup_decay(np.arange(150), *ARGUMENTS)
ROWS = np.ones((10, 1), "float32")
BOTH = pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])


def schedule(**changes):
    return lrops.WarmupCosineDecay(*ARGUMENTS, **changes)


def one_weight(K):
    class Weight(K.layers.Layer):
        def build(self, shape):
            self.weight = self.add_weight(name="weight", shape=(), initializer="zeros")

        def call(self, x):
            return tf.cast(x, self.dtype) * self.weight

    return Weight()


def model_of(rate, K=keras, steps_per_execution=1, run_eagerly=False, jit_compile=False, **arguments):
    """A model with one weight, trained by SGD or by another optimizer."""
    model = K.Sequential([K.Input((1,)), one_weight(K)])
    optimizer = rate if hasattr(rate, "iterations") else K.optimizers.SGD(rate, **arguments)
    how = {"steps_per_execution": steps_per_execution, "run_eagerly": run_eagerly, "jit_compile": jit_compile}
    model.compile(optimizer, lambda y, p: -p, **how)
    return model


def dense_model(optimizer, K=keras):
    """A model of Keras' own layers, which can be saved."""
    model = K.Sequential([K.Input((1,)), K.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, "mse")
    return model


def count(optimizer):
    """The optimizer's updates. (`int(optimizer.iterations)` fails in Keras 3.0 and under a strategy.)"""
    return int(optimizer.iterations.numpy())


def fit(model, *callbacks, x=ROWS, epochs=2, **arguments):
    if not isinstance(x, tf.data.Dataset):
        arguments |= {"y": x, "batch_size": 1, "shuffle": False}
    return model.fit(x, epochs=epochs, verbose=0, callbacks=list(callbacks), **arguments)


def dataset(known):
    data = tf.data.Dataset.from_tensor_slices((ROWS, ROWS)).batch(1)
    return data if known else data.filter(lambda x, y: True)


def Moves(K=keras):
    """A callback: how far the weight moved, and what the logs said, batch by batch."""

    class Measure(K.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.at, self.moved, self.logged = np.float32(0), [], []

        def on_train_batch_end(self, batch, logs=None):
            now = self.model.layers[-1].weight.numpy()
            self.moved.append(now - self.at)
            self.logged.append(logs["learning_rate"])
            self.at = now

    return Measure()


def recording(K, rate=None, **arguments):
    """SGD that writes the rate of each update into the variable `applied`, at the number of the update."""

    class Recording(K.optimizers.SGD):
        def update_step(self, gradient, variable, rate=None):
            rate = self._current_learning_rate if rate is None else rate
            step = tf.convert_to_tensor(self.iterations.value if K is keras else self.iterations)
            # Depends on the gradient: at the end of the data, Keras may start a step for which there is none.
            self.applied.scatter_nd_update([[step]], [tf.cast(rate, tf.float32) + 0 * tf.reduce_sum(gradient)])
            super().update_step(gradient, variable, *([rate] if K is keras else []))

    optimizer = Recording(rate or schedule(), **arguments)
    optimizer.__dict__["applied"] = tf.Variable(np.full(200, np.nan, np.float32), trainable=False)
    return optimizer


def apply(optimizer, gradient, weight):
    optimizer.apply_gradients([(gradient, weight)])


def model_with(K, train, *optimizers):
    """A model whose train_step is `train(model)`. It has a weight for each optimizer."""

    class Model(K.Model):
        def __init__(self):
            super().__init__()
            self.parts = [one_weight(K) for _ in optimizers]
            self.batches = tf.Variable(0, trainable=False)

        def call(self, x):
            return sum(part(x) for part in self.parts)

        def train_step(self, data):
            train(self)
            return {"loss": 0.0}

    model = Model()
    model(ROWS)
    for optimizer, part in zip(optimizers, model.parts, strict=True):
        optimizer.build([part.weight])
    model.compile(optimizers[0], **({"jit_compile": False} if K is keras else {}))
    return model, optimizers


def plain(K, **arguments):
    optimizer = recording(K)
    return model_of(optimizer, K, **arguments), [optimizer]


def accumulates(K):
    def train(model):
        def update():
            apply(model.optimizer, tf.constant(-1.0), model.parts[0].weight)
            return 0.0

        tf.cond(model.batches.assign_add(1) % 4 == 0, update, lambda: 0.0)

    return model_with(K, train, recording(K))


def wgan(K):
    critic, generator = recording(K, name="critic"), recording(K, name="generator")

    def train(model):
        for optimizer, part in zip([critic] * 5 + [generator], [model.parts[0]] * 5 + [model.parts[1]], strict=True):
            apply(optimizer, tf.constant(-1.0), part.weight)

    return model_with(K, train, critic, generator)


def in_py_function(K):
    def train(model):
        tf.print(model.optimizer.iterations + 0, output_stream="file:///dev/null")
        tf.py_function(lambda: apply(model.optimizer, tf.constant(-1.0), model.parts[0].weight), [], [])

    return model_with(K, train, recording(K))


def wrapped(K):
    inner = recording(K)

    class Wrapper(K.optimizers.Optimizer):
        learning_rate = property(lambda self: inner.learning_rate, lambda self, value: None)
        iterations = property(lambda self: inner.iterations, lambda self, value: None)
        build, apply, apply_gradients = inner.build, getattr(inner, "apply", None), inner.apply_gradients
        update_step = get_config = None

    wrapper = Wrapper(name="wrapper", **({"learning_rate": 0.0} if K is keras else {}))
    wrapper.wrapped = inner
    return model_of(wrapper, K), [inner]


def nodes(function, *arguments):
    """The nodes of a traced function, and of the functions that it calls."""
    definition = function.get_concrete_function(*arguments).graph.as_graph_def()
    return [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]


def evaluations(function, *arguments, op="Lrops>WarmupDecay"):
    return sum(node.op == op for node in nodes(function, *arguments))


def adamw(schedule, variables, jit_compile=False, K=keras):
    """A traced step of AdamW over variables that decay, and the variables."""
    weights = [getattr(K, "Variable", tf.Variable)(np.ones(2, "float32")) for _ in range(variables)]
    optimizer = K.optimizers.AdamW(schedule, weight_decay=0.1)
    optimizer.build(weights)

    def step():
        optimizer.apply_gradients([(tf.ones(2), weight) for weight in weights])

    return tf.function(step, jit_compile=jit_compile, autograph=False), weights


def in_a_loop(variable):
    tf.while_loop(lambda i: i < 1, lambda i: (variable.assign_add(1), i + 1)[1:], [tf.constant(0)])


def through_another_handle(variable):
    tf.raw_ops.AssignAddVariableOp(resource=tf.identity(variable.handle), value=tf.ones([], variable.dtype))


# Each adds 1 to a variable.
WRITERS = {
    "assign": lambda variable: variable.assign(variable + 1),
    "assign_add": lambda variable: variable.assign_add(1),
    "nested": lambda variable: tf.function(lambda: variable.assign_add(1))(),
    "in_a_branch": lambda variable: tf.cond(tf.constant(True), lambda: variable.assign_add(1), variable.read_value),
    "in_a_loop": in_a_loop,
    "through_another_handle": through_another_handle,
}
