"""One evaluation in a traced function, and never a stale one: every write to the variable in between is seen."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import MIRRORED, Curve, run_python, schedule_of

from lrops import reference

CURVE = Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40)
RATES = reference.warmup_decay(np.arange(60), **CURVE.arguments())


def evaluations(function, *arguments):
    """The nodes of the op in a traced function, those of the functions that it calls included."""
    definition = function.get_concrete_function(*arguments).graph.as_graph_def()
    nodes = itertools.chain(definition.node, *(inner.node_def for inner in definition.library.function))
    return sum(node.op == "Lrops>WarmupDecay" for node in nodes)


def nested(variable):
    tf.function(lambda: variable.assign_add(1))()


def in_a_branch(variable):
    tf.cond(tf.constant(True), lambda: variable.assign_add(1), lambda: variable.read_value())


def in_a_loop(variable):
    tf.while_loop(lambda i: i < 1, lambda i: (variable.assign_add(1), i + 1)[1:], [tf.constant(0)])


def through_another_handle(variable):
    tf.raw_ops.AssignAddVariableOp(resource=tf.identity(variable.handle), value=tf.constant(1, tf.int64))


WRITERS = {
    "assign_add": lambda variable: variable.assign_add(1),
    "assign": lambda variable: variable.assign(variable + 1),
    "nested": nested,
    "in_a_branch": in_a_branch,
    "in_a_loop": in_a_loop,
    "through_another_handle": through_another_handle,
}
KINDS = {"tf": lambda: tf.Variable(3, dtype=tf.int64), "keras": lambda: keras.Variable(3, dtype="int64")}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_in_between_is_seen(writer):
    variable, schedule = KINDS["tf"](), schedule_of(CURVE)

    @tf.function
    def function():
        before = [schedule(variable), schedule(variable)]
        with tf.control_dependencies(before):
            WRITERS[writer](variable)
        return [*before, schedule(variable), schedule(variable)]

    for first in (3, 4, 5):
        np.testing.assert_array_equal(function(), RATES[[first, first, first + 1, first + 1]])
    assert evaluations(function) >= 2


def loop_over(dataset):
    for _ in dataset:  # AutoGraph makes it a reduction
        pass


CONSUMERS = {
    "reduce": lambda dataset: dataset.reduce(tf.constant(0, tf.int64), lambda total, _: total),
    "get_single_element": lambda dataset: dataset.get_single_element(),
    "loop": loop_over,
}


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_dataset_that_writes_is_seen(consumer):
    """The operation that writes has no variable among its inputs, but a dataset that was made before."""
    variable, schedule = KINDS["tf"](), schedule_of(CURVE)

    @tf.function
    def function():
        dataset = tf.data.Dataset.range(1, 2).map(lambda one: one + 0 * variable.assign_add(1))
        before = schedule(variable)
        CONSUMERS[consumer](dataset)
        return before, schedule(variable)

    np.testing.assert_array_equal(function(), RATES[[3, 4]])


def test_a_generator_whose_numbers_are_not_its_state():
    generator = tf.random.Generator.from_seed(1, alg="philox")
    schedule = schedule_of(Curve(initial_learning_rate=1.0, warmup_steps=2**40, total_steps=2**60))

    @tf.function
    def function():
        before = schedule(generator.state)
        generator.normal([2])
        return before, schedule(generator.state)

    before, after = function()
    assert before[0] < after[0]


def test_what_is_made_inside_an_xla_context_is_not_used_outside():
    variable, schedule = KINDS["tf"](), schedule_of(CURVE)

    @tf.function
    def function():
        twice = tf.xla.experimental.compile(lambda: [1 * schedule(variable), 1 * schedule(variable)])
        return twice, schedule(variable)

    (inside, again), outside = function()
    assert inside == again == outside == RATES[3]
    assert evaluations(function) == 2


def test_an_order_that_the_user_gives_is_kept():
    variable, schedule = KINDS["tf"](), schedule_of(CURVE)

    @tf.function
    def function():
        before = schedule(variable)
        with tf.control_dependencies([before]):
            written = tf.py_function(lambda: variable.assign_add(1), [], tf.int64)
        with tf.control_dependencies([written]):
            return before, schedule(variable)

    np.testing.assert_array_equal(function(), RATES[[3, 4]])


def test_a_function_without_automatic_order():
    variable, schedule = KINDS["tf"](), schedule_of(CURVE)

    def function():
        before = schedule(variable)
        with tf.control_dependencies([before]):
            written = variable.assign_add(1, read_value=False)
        unordered = schedule(variable)
        with tf.control_dependencies([written]):
            after = schedule(variable)
        with tf.control_dependencies([unordered]):
            return tf.identity(before), tf.identity(after)

    np.testing.assert_array_equal(tf.compat.v1.wrap_function(function, [])(), RATES[[3, 4]])


@pytest.mark.parametrize("kind", KINDS)
def test_one_evaluation_where_nothing_writes(kind):
    step, schedule = KINDS[kind](), schedule_of(CURVE)
    weight, other = tf.Variable(1.0), tf.Variable(0, dtype=tf.int64)

    @tf.function
    def function():
        rates = []
        for _ in range(5):
            weight.assign_sub(schedule(step) * tf.random.uniform([]))
            rates.append(schedule(step))
        return rates

    np.testing.assert_array_equal(function(), RATES[[3] * 5])
    assert evaluations(function) == 1

    @tf.function
    def another_variable_is_another():
        return schedule(step), schedule(other), schedule(other)

    np.testing.assert_array_equal(another_variable_is_another(), RATES[[3, 0, 0]])
    assert evaluations(another_variable_is_another) == 2


def test_schedules_are_kept_apart():
    step, first, second = KINDS["tf"](), schedule_of(CURVE), schedule_of(Curve(initial_learning_rate=0.5))
    function = tf.function(lambda: (first(step), second(step), first(step)))
    low, high, again = function()
    assert low == again == RATES[3] and high == schedule_of(Curve(initial_learning_rate=0.5)).on_host(3)
    assert evaluations(function) == 2


def test_a_variable_that_is_an_argument():
    schedule = schedule_of(CURVE)

    @tf.function
    def function(variable):
        before = schedule(variable)
        variable.assign_add(2)
        return before, schedule(variable)

    for variable in (KINDS["tf"](), KINDS["tf"]()):
        np.testing.assert_array_equal(function(variable), RATES[[3, 5]])


@pytest.mark.parametrize("called_first", [False, True])  # else `get_concrete_function` traces, in a context of XLA
@pytest.mark.parametrize("jit_compile", [False, True])
def test_adamw_evaluates_once_a_step(jit_compile, called_first):
    weights = [keras.Variable(np.ones(2, "float32")) for _ in range(7)]
    optimizer = keras.optimizers.AdamW(schedule_of(CURVE), weight_decay=0.1)
    optimizer.build(weights)
    step = tf.function(lambda: optimizer.apply([tf.ones(2)] * 7), jit_compile=jit_compile)
    if called_first:
        step()
    assert evaluations(step) == 1


def sgd():
    """An optimizer, and a weight that falls by the rate of each step."""
    optimizer = keras.optimizers.SGD(schedule_of(CURVE))
    weight = keras.Variable(0.0, dtype="float64")
    optimizer.build([weight])
    return optimizer, weight, [tf.constant(1.0, tf.float64)]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_several_steps_in_one_function(jit_compile):
    optimizer, weight, gradient = sgd()

    @tf.function(jit_compile=jit_compile)
    def unrolled():
        rates = []
        for _ in range(4):
            rates.append(optimizer.learning_rate)
            optimizer.apply(gradient)
        return rates

    np.testing.assert_array_equal(unrolled(), RATES[:4])

    @tf.function(jit_compile=jit_compile)
    def looped():
        for _ in tf.range(20):
            optimizer.apply(gradient)

    looped()
    assert optimizer.iterations.numpy() == 24
    np.testing.assert_allclose(weight.numpy(), -RATES[:24].astype(np.float64).sum(), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_gradient_accumulation(optimizer):
    """Four micro-batches an update, traced, against the same untraced: where nothing is merged."""
    finals = []
    for run_eagerly in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
        make = getattr(keras.optimizers, optimizer)
        model.compile(make(schedule_of(CURVE), weight_decay=0.1, gradient_accumulation_steps=4), "mse")
        model.run_eagerly = run_eagerly
        rows = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
        model.fit(rows, rows[:, :1], batch_size=2, epochs=1, shuffle=False, verbose=0)
        finals.append(model.get_weights())
    for traced, eager in zip(*finals, strict=True):
        np.testing.assert_allclose(traced, eager, rtol=1e-4, atol=1e-6)


EVALUATE = """
with strategy.scope():
    schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1)
    weights = [keras.Variable(1.0) for _ in range(5)]
    optimizer.build(weights)

@tf.function
def step():
    def replica():
        before = schedule(optimizer.iterations)
        optimizer.apply([tf.ones([])] * 5)
        return before, schedule(optimizer.iterations)
    return tf.nest.map_structure(strategy.experimental_local_results, strategy.run(replica))

for count in range(3):
    before, after = step()
    assert [float(rate) for rate in before] == [float(schedule(count))] * 2, before
    assert [float(rate) for rate in after] == [float(schedule(count + 1))] * 2, after
with strategy.scope():
    @tf.function
    def step_and_rate():
        strategy.run(lambda: optimizer.apply([tf.ones([])] * 5))
        return optimizer.learning_rate  # of the next step, read where there is no replica

for count in range(3, 6):
    assert float(step_and_rate()) == float(schedule(count + 1))
ops = [op for op in step.get_concrete_function().graph.get_operations() if op.type == "Lrops>WarmupDecay"]
print(sorted(op.device[-5:] for op in ops))
"""


def test_each_replica_evaluates_for_itself(tmp_path):
    result = run_python("-c", MIRRORED + EVALUATE, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[-2] == str(["CPU:0"] * 2 + ["CPU:1"] * 2)


def test_xla_does_not_copy_the_evaluation_into_every_fusion():
    weights = [keras.Variable(np.ones(2, "float32")) for _ in range(12)]
    optimizer = keras.optimizers.AdamW(schedule_of(CURVE), weight_decay=0.1)
    optimizer.build(weights)
    step = tf.function(lambda: optimizer.apply([tf.ones(2)] * 12), jit_compile=True)
    module = step.experimental_get_compiler_ir()(stage="optimized_hlo")
    assert 0 < module.count(" count-leading-zeros(") < 10
