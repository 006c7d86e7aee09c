"""A traced function holds one evaluation, and never a stale one: any write to the variable causes another."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import MIRRORED, Curve, schedule_of
from processes import output_of
from training import BOTH, WRITERS, adamw, evaluations, fit, model_of

import lrops
from lrops._tracing import compiled_graphs, schedules_in

CURVE = Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40)


def distribute(name):  # these have no public name
    return importlib.import_module(f"tensorflow.python.distribute.{name}")


class Other(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that somebody else wrote: an error function, which marks an evaluation in a graph, plus `more`."""

    def __init__(self, more=lambda step: 0.0):
        self.more = more

    def __call__(self, step):
        rate = 1e-3 * tf.math.erfc(1e-2 * as_float(step))
        return rate + 1e-4 * as_float(self.more(step))


WEIGHT = tf.Variable(2.0)
GENERATOR = tf.random.Generator.from_seed(1)
A_FUNCTION = tf.function(lambda step: tf.math.log1p(as_float(step)))
A_FUNCTION_THAT_READS = tf.function(lambda step: WEIGHT + as_float(step))


def as_float(step):
    return tf.cast(step, tf.float32)


def looped(body):
    return tf.while_loop(lambda i, total: i < 3, lambda i, total: (i + 1, total + body()), [0, 0.0])[1]


def in_a_case(step, body):
    return tf.switch_case(tf.cast(step, tf.int32), [body, lambda: 1.0])


def printed(step):
    tf.print(step, output_stream="file:///dev/null")
    return 1.0


# What `Other` may add.
PURE = {
    "python_number": lambda step: 0.0,
    "branch": lambda step: tf.cond(as_float(step) < 3, lambda: 1.0, lambda: 2.0),
    "branch_that_reads_the_step": lambda step: tf.cond(tf.constant(True), lambda: as_float(step), lambda: 2.0),
    "case": lambda step: in_a_case(step, lambda: as_float(step)),
    "loop_that_reads_the_step": lambda step: looped(lambda: as_float(step)),
    "loop_in_a_branch": lambda step: tf.cond(tf.constant(True), lambda: looped(lambda: as_float(step)), lambda: 2.0),
    "function": lambda step: A_FUNCTION(tf.convert_to_tensor(step)),
    "stateless_random": lambda step: tf.random.stateless_uniform([], [1, 2]),
}
IMPURE = {
    "variable": lambda step: WEIGHT + 0.0,
    "variable_in_a_function": lambda step: A_FUNCTION_THAT_READS(tf.convert_to_tensor(step)),
    "variable_in_a_branch_of_a_loop": lambda step: looped(
        lambda: tf.cond(as_float(step) < 3, lambda: WEIGHT + 0.0, lambda: 1.0)
    ),
    "write": lambda step: WEIGHT.assign_add(0.0),
    "print": printed,
    "print_in_a_case": lambda step: in_a_case(step, lambda: printed(step)),
    "check_numerics": lambda step: tf.debugging.check_numerics(as_float(step), "a step"),
    "python": lambda step: tf.py_function(lambda: np.float32(1), [], tf.float32),
    "dataset": lambda step: tf.data.Dataset.range(3).reduce(0, lambda total, _: total + 1),
    "another_curve_with_a_variable": lambda step: lrops.WarmupDecay(WEIGHT, 4, 8, decay="linear")(step),
}
DRAWS = {
    "random": lambda step: tf.random.uniform([]),
    "random_in_a_case": lambda step: in_a_case(step, lambda: tf.random.uniform([])),
    "generator": lambda step: GENERATOR.uniform([]),
}
MORE = PURE | IMPURE | DRAWS
# XLA compiles for seconds, so it is tried with a few of them only.
SOME_XLA = [(more, True) for more in ("python_number", "branch", "loop_that_reads_the_step", "variable")]


@pytest.mark.slow
@pytest.mark.parametrize(("more", "jit_compile"), [*((more, False) for more in MORE), *SOME_XLA])
def test_anothers_schedule_is_merged_if_it_is_pure(more, jit_compile):
    """AdamW moves the weights as in eager mode, which merges nothing."""
    schedule = lrops.LinearWarmup(Other(MORE[more]), 2)
    (step, weights), (eager, expected) = adamw(schedule, 4, jit_compile), adamw(schedule, 4)
    assert evaluations(step, op="Erfc") == (1 if more in PURE else 5)
    for _ in range(4):
        step()
        eager.python_function()
    if more not in DRAWS:
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


MERGED = {
    "curve": schedule_of(CURVE),
    "warmup": lrops.LinearWarmup(Other(), 2),
    "branching": lrops.LinearWarmup(Other(PURE["branch_that_reads_the_step"]), 0),
}
merged = pytest.mark.parametrize("schedule", MERGED.values(), ids=MERGED)


def step_variable(value=3):
    return tf.Variable(value, dtype=tf.int64)


def rates(schedule, *steps):
    """In eager mode, which merges nothing."""
    return [schedule(step).numpy() for step in steps]


@merged
@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_in_between_is_seen(writer, schedule):
    step = step_variable()

    @tf.function
    def function():
        before = [schedule(step), schedule(step)]
        with tf.control_dependencies(before):
            WRITERS[writer](step)
        return [*before, schedule(step), schedule(step)]

    for first in (3, 4, 5):
        np.testing.assert_array_equal(function(), rates(schedule, first, first, first + 1, first + 1))


@merged
def test_a_dataset_that_writes_is_seen(schedule):
    """The operation that writes has no variable among its inputs, but a dataset that was made before."""
    step = step_variable()

    @tf.function
    def function():
        dataset = tf.data.Dataset.range(1, 2).map(lambda one: one + 0 * step.assign_add(1))
        before = schedule(step)
        dataset.reduce(tf.constant(0, tf.int64), lambda total, _: total)
        return before, schedule(step)

    np.testing.assert_array_equal(function(), rates(schedule, 3, 4))


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


@merged
def test_an_order_that_the_user_gives_is_kept(schedule):
    step = step_variable()

    @tf.function
    def function():
        before = [schedule(step), schedule(step.value())]
        with tf.control_dependencies(before):
            written = tf.py_function(lambda: step.assign_add(1), [], tf.int64)
        with tf.control_dependencies([written]):
            now = step.value()
            after = schedule(step)
        return *before, after, schedule(now)

    np.testing.assert_array_equal(function(), rates(schedule, 3, 3, 4, 4))


@merged
def test_two_reads_by_the_calling_function_are_apart(schedule):
    step = step_variable()

    @tf.function
    def function():
        before = step.value()
        step.assign_add(1)
        after = step.value()
        return tf.cond(tf.constant(True), lambda: (schedule(before), schedule(after)), lambda: (0.0, 0.0))

    np.testing.assert_array_equal(function(), rates(schedule, 3, 4))


@merged
def test_a_function_without_automatic_order(schedule):
    """The slow write may follow both evaluations, so the tensor that it returns is the only one that has its value."""
    step = step_variable()

    def function():
        product = tf.linalg.matmul(tf.random.normal([500, 500]), tf.random.normal([500, 500]))
        written = step.assign_add(1 + tf.cast(0 * tf.reduce_sum(product), tf.int64))
        schedule(step)
        return schedule(written)

    assert tf.compat.v1.wrap_function(function, [])() == schedule(4)


@merged
def test_a_variable_whose_reads_are_cached(schedule):
    """As ParameterServerStrategy caches them: in the scope, the value before a write is read after it too."""
    cached = distribute("ps_values").CachingVariable(step_variable())

    @tf.function
    def function():
        with distribute("distribute_utils").cache_variable_reads():
            cached.value()
            cached.assign_add(1)
            schedule(cached)
        return schedule(cached)

    assert function() == schedule(4)


def test_a_handle_without_a_text_may_be_of_the_same_variable():
    packed = distribute("packed_distributed_variable").PackedDistributedVariable([step_variable()])
    schedule, other = schedule_of(CURVE), step_variable()

    @tf.function
    def function():
        rates = []
        for variable in (other, packed):
            rates.append(schedule(variable))
            packed.assign_add(1)
            rates.append(schedule(variable))
        return rates

    np.testing.assert_array_equal(function(), rates(schedule, 3, 3, 4, 5))


def test_what_is_made_inside_an_xla_context_is_not_used_outside():
    step, schedule = step_variable(), schedule_of(CURVE)

    @tf.function
    def function():
        twice = tf.xla.experimental.compile(lambda: [1 * schedule(step), 1 * schedule(step)])
        return *twice, schedule(step)

    np.testing.assert_array_equal(function(), rates(schedule, 3, 3, 3))
    assert evaluations(function) == 2


@merged
@pytest.mark.parametrize("make", [tf.Variable, keras.Variable])
def test_one_evaluation_where_nothing_writes(make, schedule):
    step, weight = make(3, dtype="int64"), tf.Variable(1.0)

    @tf.function
    def function():
        rates = []
        for _ in range(5):
            weight.assign_sub(schedule(step) * tf.random.uniform([]))
            rates.append(schedule(step))
        return rates

    np.testing.assert_array_equal(function(), rates(schedule, 3) * 5)
    assert 1 == (evaluations(function, op="Erfc") or evaluations(function))


def test_another_variable_and_another_schedule_are_others():
    first, second, inner = step_variable(), step_variable(0), Other()
    schedules = [schedule_of(CURVE), schedule_of(Curve(initial_learning_rate=0.5, warmup_steps=4))]
    schedules += [lrops.LinearWarmup(inner, warmup_steps) for warmup_steps in (0, 4, 4)]

    @tf.function
    def function():
        return [schedule(step) for _ in range(2) for schedule in schedules for step in (first, second)]

    np.testing.assert_array_equal(function(), [schedule(at) for schedule in schedules for at in (3, 0)] * 2)
    assert evaluations(function, op="Erfc") == 6
    assert evaluations(function) == 8  # of two curves and two factors


@pytest.mark.parametrize("called_first", [False, True])  # else `get_concrete_function` traces, in a context of XLA
@pytest.mark.parametrize("jit_compile", [False, True])
def test_adamw_evaluates_once_a_step(jit_compile, called_first):
    step, _ = adamw(schedule_of(CURVE), 7, jit_compile)
    if called_first:
        step()
    assert evaluations(step) == 1


def test_xla_does_not_copy_the_evaluation_into_every_fusion():
    step, _ = adamw(schedule_of(CURVE), 12, jit_compile=True)
    module = step.experimental_get_compiler_ir()(stage="optimized_hlo")
    assert 0 < module.count(" count-leading-zeros(") < 10


@pytest.mark.slow
@merged
def test_gradient_accumulation(schedule):
    """Compares two micro-batches an update with the same untraced, which merges nothing."""
    finals = []
    for run_eagerly in (False, True):
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1, gradient_accumulation_steps=2)
        fit(model := model_of(optimizer, run_eagerly=run_eagerly))
        finals.append(model.get_weights()[0])
    np.testing.assert_allclose(*finals, rtol=1e-4)
    assert finals[0] != 0


@merged
@pytest.mark.parametrize("jit_compile", [False, True])
def test_several_steps_in_a_loop(schedule, jit_compile):
    """SGD with a gradient of one: the weight falls by the rate of each step."""
    optimizer, weight = keras.optimizers.SGD(schedule), keras.Variable(0.0, dtype="float64")
    optimizer.build([weight])

    @tf.function(jit_compile=jit_compile)
    def function():
        for _ in tf.range(20):
            optimizer.apply([tf.constant(1.0, tf.float64)])

    function()
    assert optimizer.iterations.numpy() == 20
    np.testing.assert_allclose(weight.numpy(), -np.sum(rates(schedule, *range(20)), dtype="float64"), rtol=1e-6)


EVALUATE = """
def check(schedule):
    with strategy.scope():
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1)
        weights = [keras.Variable(1.0) for _ in range(5)]
        optimizer.build(weights)

    @tf.function
    def step():
        def replica():
            before = schedule(optimizer.iterations)
            optimizer.apply([tf.ones([])] * 5)
            return before, schedule(optimizer.iterations)
        rates = tf.nest.map_structure(strategy.experimental_local_results, strategy.run(replica))
        return *rates, optimizer.learning_rate  # the last is read where there is no replica

    with strategy.scope():
        for count in range(3):
            before, after, outside = step()
            assert [float(rate) for rate in before] == [float(schedule(count))] * 2, before
            assert [float(rate) for rate in (*after, outside)] == [float(schedule(count + 1))] * 3, (after, outside)
    ops = [op for op in step.get_concrete_function().graph.get_operations() if op.type == "Lrops>WarmupDecay"]
    print(sorted(op.device[-5:] for op in ops))

check(lrops.WarmupCosineDecay(0.01, 8, 40))
check(lrops.LinearWarmup(keras.optimizers.schedules.PolynomialDecay(0.01, 40), 8))

class OfReplica(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)

shared, of_replica = tf.Variable(1, dtype=tf.int64), lrops.LinearWarmup(OfReplica(), 0)
run = tf.function(lambda: strategy.experimental_local_results(strategy.run(of_replica, [shared])))
assert [float(rate) for rate in run()] == [0, 1]
"""


def test_each_replica_evaluates_for_itself(tmp_path):
    assert output_of(MIRRORED + EVALUATE, folder=tmp_path) == f"{['CPU:0'] * 2 + ['CPU:1'] * 2}\n" * 2


def test_a_schedule_that_waits_for_an_operation_is_not_merged():
    """The control dependency may be the only thing that orders a write after the first evaluation."""
    step, waited = step_variable(), []

    def wait(step):
        with tf.control_dependencies(waited):
            return tf.identity(1.0)

    schedule = lrops.LinearWarmup(Other(wait), 0)

    @tf.function
    def function():
        waited[:] = [tf.constant(1.0)]
        return schedule(step), schedule(step)

    assert evaluations(function, op="Erfc") == 2


def test_what_was_evaluated_before_hides_no_variable():
    """The curve with a variable peak was merged before, so that in the warmup it adds no operation that reads it."""
    peak, step = tf.Variable(1.0), step_variable(4)
    curve = lrops.WarmupDecay(peak, 4, 8, decay="linear")
    schedule = lrops.LinearWarmup(curve, 0)

    @tf.function
    def function():
        before = [curve(step), schedule(step)]
        peak.assign_add(1.0)
        return [*before, curve(step), schedule(step)]

    np.testing.assert_array_equal(function(), [1, 1, 2, 2])


def test_a_warmup_lives_as_long_as_its_results():
    """Else another schedule could get its identity, and its rates."""
    step = step_variable()

    @tf.function
    def function():
        return [lrops.LinearWarmup(Other(lambda _, number=number: number), 0)(step) for number in range(50)]

    assert len(set(map(float, function()))) == 50


def test_an_evaluation_that_failed_leaves_the_merging_as_it_was():
    step, schedule = step_variable(), schedule_of(CURVE)

    def fail(_):
        raise NotImplementedError

    @tf.function(autograph=False)
    def function():
        before = schedule(step)
        with pytest.raises(NotImplementedError):
            lrops.LinearWarmup(Other(fail), 0)(step)
        return before, schedule(step)

    assert evaluations(function) == 1


@BOTH
def test_the_schedules_that_are_compiled_into_a_function(K):
    curve, other, step = schedule_of(CURVE), schedule_of(CURVE), step_variable()
    warmed = lrops.LinearWarmup(curve, 2)
    branch = tf.function(lambda yes: tf.cond(yes, lambda: other(step), lambda: warmed(step)))
    called = tf.function(lambda yes: branch(yes))
    called(tf.constant(True))
    for function in (called, branch):
        assert schedules_in(compiled_graphs(function)) == {other, warmed}  # not `curve`, which is inside
    for rate, arguments in ((curve, {"jit_compile": True}), (warmed, {"steps_per_execution": 2}), (0.1, {})):
        fit(model := model_of(rate, K, **arguments))
        assert schedules_in(compiled_graphs(model.train_function)) == {rate} - {0.1}
