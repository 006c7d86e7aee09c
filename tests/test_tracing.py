"""A traced function holds one evaluation, and never a stale one: any write to the variable causes another."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import MIRRORED, Curve, schedule_of
from processes import run_snippet
from training import WRITERS, adamw, evaluations, fit, model_of

import lrops
from lrops import reference
from lrops._tracing import schedules_in

CURVE = Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40)
RATES = reference.warmup_decay(np.arange(60), **CURVE.arguments())


KINDS = {"tf": lambda: tf.Variable(3, dtype=tf.int64), "keras": lambda: keras.Variable(3, dtype="int64")}


def anothers(more="the_step", warmup_steps=2):
    schedule = lrops.LinearWarmup(Other(PURE[more]), warmup_steps)
    return schedule, np.array([schedule(step) for step in range(10)])


# A schedule that is merged, and its rates.
MERGED = {"curve": lambda: (schedule_of(CURVE), RATES), "anothers": anothers}
BRANCHING = {"branching": lambda: anothers("branch_that_reads_the_step", warmup_steps=0)}


@pytest.mark.parametrize("merged", [*MERGED, "branching"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_in_between_is_seen(writer, merged):
    kind = "keras" if merged == "branching" else "tf"
    variable, (schedule, rates) = KINDS[kind](), (MERGED | BRANCHING)[merged]()

    @tf.function
    def function():
        before = [schedule(variable), schedule(variable)]
        with tf.control_dependencies(before):
            WRITERS[writer](variable if kind == "tf" else variable.value)
        return [*before, schedule(variable), schedule(variable)]

    for first in (3, 4, 5):
        np.testing.assert_array_equal(function(), rates[[first, first, first + 1, first + 1]])


def loop_over(dataset):
    for _ in dataset:  # AutoGraph makes it a reduction
        pass


CONSUMERS = {
    "reduce": lambda dataset: dataset.reduce(tf.constant(0, tf.int64), lambda total, _: total),
    "get_single_element": lambda dataset: dataset.get_single_element(),
    "loop": loop_over,
}


@pytest.mark.parametrize("merged", MERGED)
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_dataset_that_writes_is_seen(consumer, merged):
    """The operation that writes has no variable among its inputs, but a dataset that was made before."""
    variable, (schedule, rates) = KINDS["tf"](), MERGED[merged]()

    @tf.function
    def function():
        dataset = tf.data.Dataset.range(1, 2).map(lambda one: one + 0 * variable.assign_add(1))
        before = schedule(variable)
        CONSUMERS[consumer](dataset)
        return before, schedule(variable)

    np.testing.assert_array_equal(function(), rates[[3, 4]])


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


@pytest.mark.parametrize("merged", MERGED)
def test_an_order_that_the_user_gives_is_kept(merged):
    variable, (schedule, rates) = KINDS["tf"](), MERGED[merged]()

    @tf.function
    def function():
        before = schedule(variable)
        with tf.control_dependencies([before]):
            written = tf.py_function(lambda: variable.assign_add(1), [], tf.int64)
        with tf.control_dependencies([written]):
            return before, schedule(variable)

    np.testing.assert_array_equal(function(), rates[[3, 4]])


def slow_zero():
    product = tf.linalg.matmul(tf.random.normal([500, 500]), tf.random.normal([500, 500]))
    return tf.cast(0 * tf.reduce_sum(product), tf.int64)


@pytest.mark.parametrize("merged", MERGED)
@pytest.mark.parametrize("graph", ["wrapped", "branch", "loop"])
def test_a_function_without_automatic_order(graph, merged):
    """A slow write may follow both evaluations, so the tensor that it returns is the only one that has its value."""
    schedule, rates = MERGED[merged]()

    def evaluate_what_was_written(variable):
        written = variable.assign_add(1 + slow_zero())
        schedule(variable)
        return schedule(written)

    if graph == "wrapped":
        variable = KINDS["tf"]()
        assert tf.compat.v1.wrap_function(lambda: evaluate_what_was_written(variable), [])() == rates[4]
        return
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("step", initializer=tf.constant(3, tf.int64), use_resource=True)

        def body():
            return evaluate_what_was_written(variable)

        if graph == "branch":
            rate = tf.cond(tf.constant(True), body, lambda: tf.constant(0.0))
        else:
            rate = tf.while_loop(lambda i, _: i < 1, lambda i, _: (i + 1, body()), [0, tf.constant(0.0)])[1]
        session.run(variable.initializer)
        assert session.run(rate) == rates[4]


@pytest.mark.parametrize("merged", MERGED)
def test_a_variable_whose_reads_are_cached(merged):
    """As ParameterServerStrategy caches them: in the scope, the value before a write is read after it too."""
    distribute = "tensorflow.python.distribute."
    cached = importlib.import_module(f"{distribute}ps_values").CachingVariable(KINDS["tf"]())
    scope = importlib.import_module(f"{distribute}distribute_utils").cache_variable_reads
    schedule, rates = MERGED[merged]()

    @tf.function
    def function():
        with scope():
            cached.value()
            cached.assign_add(1)
            schedule(cached)
        return schedule(cached)

    assert function() == rates[4]


def test_a_handle_without_a_text_may_be_of_the_same_variable():
    packed = importlib.import_module("tensorflow.python.distribute.packed_distributed_variable")
    packed, other = packed.PackedDistributedVariable([KINDS["tf"]()]), KINDS["tf"]()
    schedule = schedule_of(CURVE)

    @tf.function
    def function():
        rates = []
        for variable in (other, packed):
            rates.append(schedule(variable))
            packed.assign_add(1)
            rates.append(schedule(variable))
        return rates

    np.testing.assert_array_equal(function(), RATES[[3, 3, 4, 5]])


@pytest.mark.parametrize("kind", KINDS)
def test_one_evaluation_where_nothing_writes(kind):
    step, schedule = KINDS[kind](), schedule_of(CURVE)
    weight = tf.Variable(1.0)

    @tf.function
    def function():
        rates = []
        for _ in range(5):
            weight.assign_sub(schedule(step) * tf.random.uniform([]))
            rates.append(schedule(step))
        return rates

    np.testing.assert_array_equal(function(), RATES[[3] * 5])
    assert evaluations(function) == 1


def test_another_variable_and_another_schedule_are_others():
    first, second, inner = KINDS["tf"](), tf.Variable(0, dtype=tf.int64), Other()
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


@pytest.mark.slow
@pytest.mark.parametrize("merged", MERGED)
def test_gradient_accumulation(merged):
    """Compares two micro-batches an update with the same untraced, which merges nothing."""
    finals = []
    for run_eagerly in (False, True):
        optimizer = keras.optimizers.AdamW(MERGED[merged]()[0], weight_decay=0.1, gradient_accumulation_steps=2)
        fit(model := model_of(optimizer, run_eagerly=run_eagerly))
        finals.append(model.get_weights()[0])
    np.testing.assert_allclose(*finals, rtol=1e-4)
    assert finals[0] != 0


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
        return tf.nest.map_structure(strategy.experimental_local_results, strategy.run(replica))

    for count in range(3):
        before, after = step()
        assert [float(rate) for rate in before] == [float(schedule(count))] * 2, before
        assert [float(rate) for rate in after] == [float(schedule(count + 1))] * 2, after

    @tf.function
    def step_and_rate():
        strategy.run(lambda: optimizer.apply([tf.ones([])] * 5))
        return optimizer.learning_rate  # of the next step, read where there is no replica

    with strategy.scope():
        for count in range(3, 6):
            assert float(step_and_rate()) == float(schedule(count + 1))
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
    result = run_snippet(MIRRORED + EVALUATE, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[-3:-1] == [str(["CPU:0"] * 2 + ["CPU:1"] * 2)] * 2


def test_xla_does_not_copy_the_evaluation_into_every_fusion():
    step, _ = adamw(schedule_of(CURVE), 12, jit_compile=True)
    module = step.experimental_get_compiler_ir()(stage="optimized_hlo")
    assert 0 < module.count(" count-leading-zeros(") < 10


class Other(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that somebody else wrote: an error function, which marks an evaluation in a graph, plus `more`."""

    def __init__(self, more=lambda step: 0.0):
        self.more = more

    def __call__(self, step):
        rate = 1e-3 * tf.math.erfc(1e-2 * tf.cast(step, tf.float32))
        return rate + 1e-4 * tf.cast(self.more(step), tf.float32)


WEIGHT = tf.Variable(2.0)
GENERATOR = tf.random.Generator.from_seed(1)
A_FUNCTION = tf.function(lambda step: tf.math.log1p(tf.cast(step, tf.float32)))
A_FUNCTION_THAT_READS = tf.function(lambda step: WEIGHT + tf.cast(step, tf.float32))


def looped(body):
    return tf.while_loop(lambda i, total: i < 3, lambda i, total: (i + 1, total + body()), [0, 0.0])[1]


def as_float(step):
    return tf.cast(step, tf.float32)


def printed(step):
    tf.print(step, output_stream="file:///dev/null")
    return 1.0


def by_python(step):
    return tf.py_function(lambda: np.float32(1), [], tf.float32)


PURE = {
    "the_step": lambda step: 0.0,
    "python_number": lambda step: 0.5,
    "branch": lambda step: tf.cond(as_float(step) < 3, lambda: 1.0, lambda: 2.0),
    "branch_that_reads_the_step": lambda step: tf.cond(tf.constant(True), lambda: as_float(step), lambda: 2.0),
    "case": lambda step: tf.switch_case(tf.cast(step, tf.int32), [lambda: 1.0, lambda: as_float(step)]),
    "loop_that_reads_the_step": lambda step: looped(lambda: as_float(step)),
    "loop_in_a_branch": lambda step: tf.cond(
        tf.constant(True), lambda: looped(lambda: as_float(step)), lambda: as_float(step)
    ),
    "function": lambda step: A_FUNCTION(tf.convert_to_tensor(step)),
    "stateless_random": lambda step: tf.random.stateless_uniform([], [1, 2]),
}
IMPURE = {
    "variable": lambda step: WEIGHT + 0.0,
    "print_in_a_case": lambda step: tf.switch_case(tf.cast(step, tf.int32), [lambda: printed(step), lambda: 1.0]),
    "variable_in_a_function": lambda step: A_FUNCTION_THAT_READS(tf.convert_to_tensor(step)),
    "variable_in_a_branch_of_a_loop": lambda step: looped(
        lambda: tf.cond(as_float(step) < 3, lambda: WEIGHT + 0.0, lambda: 1.0)
    ),
    "write": lambda step: WEIGHT.assign_add(0.0),
    "print": printed,
    "check_numerics": lambda step: tf.debugging.check_numerics(as_float(step), "a step"),
    "python": by_python,
    "dataset": lambda step: tf.data.Dataset.range(3).reduce(0, lambda total, _: total + 1),
    "another_curve_with_a_variable": lambda step: lrops.WarmupDecay(WEIGHT, 4, 8, decay="linear")(step),
}
DRAWS = {
    "random": lambda step: tf.random.uniform([]),
    "random_in_a_case": lambda step: tf.switch_case(
        tf.cast(step, tf.int32), [lambda: tf.random.uniform([]), lambda: 1.0]
    ),
    "generator": lambda step: GENERATOR.uniform([]),
}
MORE = PURE | IMPURE | DRAWS


class Unmerged(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that lrops cannot merge."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, step):
        return self.schedule(step + 0)  # not a variable, nor read from one


# XLA compiles for seconds, so it is tried with a few of them only.
SOME_XLA = [(more, True) for more in ("the_step", "branch", "loop_that_reads_the_step", "variable")]


@pytest.mark.slow
@pytest.mark.parametrize(("more", "jit_compile"), [*((more, False) for more in MORE), *SOME_XLA])
def test_anothers_schedule_is_merged_if_it_is_pure(more, jit_compile):
    """AdamW moves the weights as without merging."""
    schedule, counts, finals = lrops.LinearWarmup(Other(MORE[more]), 2), [], []
    for one in (schedule, Unmerged(schedule)):
        step, weights = adamw(one, 4, jit_compile)
        counts.append(evaluations(step, op="Erfc"))
        for _ in range(4):
            step()
        finals.append(np.array([weight.numpy() for weight in weights]))
    assert counts == [1 if more in PURE else 5, 5]
    if more not in DRAWS:
        np.testing.assert_array_equal(*finals)


@pytest.mark.parametrize("more", ["the_step", "branch", "variable", "random"])
def test_only_a_linear_warmup_merges_anothers_schedule(more):
    inner = Other(MORE[more])
    counts = [evaluations(adamw(one, 4)[0], op="Erfc") for one in (inner, lrops.LinearWarmup(inner, 0))]
    assert counts == [5, 1 if more in PURE else 5]


def test_a_schedule_that_waits_for_an_operation_is_not_merged():
    """The control dependency may be the only thing that orders a write after the first evaluation."""
    variable, waited = KINDS["tf"](), []

    def wait(step):
        with tf.control_dependencies(waited):
            return tf.identity(1.0)

    schedule = lrops.LinearWarmup(Other(wait), 0)

    @tf.function
    def function():
        waited[:] = [tf.constant(1.0)]
        return schedule(variable), schedule(variable)

    assert evaluations(function, op="Erfc") == 2


def test_what_was_evaluated_before_hides_no_variable():
    """The curve with a variable peak was merged before, so that in the warmup it adds no operation that reads it."""
    peak, step = tf.Variable(1.0), tf.Variable(4, dtype=tf.int64)
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
    step = tf.Variable(1, dtype=tf.int64)

    @tf.function
    def function():
        return [lrops.LinearWarmup(Other(lambda _, at=at: float(at)), 0)(step) for at in range(50)]

    rates = np.array(function())
    assert len(set(rates)) == 50


def test_a_gradient_of_what_was_evaluated_before_the_tape():
    step = tf.Variable(1, dtype=tf.int64)

    @tf.function
    def function(peak):
        schedule = lrops.LinearWarmup(Other(lambda _: peak), 2)
        before = schedule(step)
        with tf.GradientTape() as tape:
            tape.watch(peak)
            rate = schedule(step)
        return before, tape.gradient(rate, peak)

    np.testing.assert_allclose(function(tf.constant(1.0))[1], 0.5e-4, rtol=1e-6)


def test_an_evaluation_that_failed_leaves_the_merging_as_it_was():
    step, schedule = KINDS["tf"](), schedule_of(CURVE)

    def fail(_):
        raise NotImplementedError

    @tf.function(autograph=False)
    def function():
        before = schedule(step)
        with pytest.raises(NotImplementedError):
            lrops.LinearWarmup(Other(fail), 0)(step)
        return before, schedule(step)

    function()
    assert evaluations(function) == 1


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("merged", MERGED)
def test_several_steps_in_one_function(merged, jit_compile):
    """SGD with a gradient of one: the weight falls by the rate of each step."""
    schedule = MERGED[merged]()[0]
    optimizer, weight = keras.optimizers.SGD(schedule), keras.Variable(0.0, dtype="float64")
    optimizer.build([weight])

    @tf.function(jit_compile=jit_compile)
    def unrolled():
        rates = []
        for _ in range(4):
            rates.append(optimizer.learning_rate)
            optimizer.apply([tf.constant(1.0, tf.float64)])
        return rates

    @tf.function(jit_compile=jit_compile)
    def looped():
        for _ in tf.range(20):
            optimizer.apply([tf.constant(1.0, tf.float64)])

    expected = tf.function(schedule, jit_compile=jit_compile)
    rates = [expected(tf.constant(step, tf.int64)).numpy() for step in range(24)]
    np.testing.assert_array_equal(unrolled(), rates[:4])
    looped()
    assert optimizer.iterations.numpy() == 24
    np.testing.assert_allclose(weight.numpy(), -np.sum(rates, dtype="float64"), rtol=1e-6)


@pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_the_schedules_that_are_compiled_into_a_function(module):
    curve, step = schedule_of(CURVE), tf.Variable(0, dtype=tf.int64)
    warmed, other = lrops.LinearWarmup(curve, 2), schedule_of(CURVE)
    branch = tf.function(lambda yes: tf.cond(yes, lambda: other(step), lambda: warmed(step)))
    called = tf.function(lambda yes: branch(yes))
    assert schedules_in(called) is None
    called(tf.constant(True))
    assert schedules_in(called) == schedules_in(branch) == {other, warmed}  # not `curve`, which is inside
    for schedule, arguments in ((curve, {"jit_compile": True}), (warmed, {"steps_per_execution": 2}), (0.1, {})):
        model = module.Sequential([module.layers.Dense(1)])
        model.compile(module.optimizers.SGD(schedule), "mse", **arguments)
        model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=1, verbose=0)
        assert schedules_in(model.train_function) == ({schedule} if schedule != 0.1 else set())
