"""A step in float32 or float64, which tf_keras' legacy optimizers and their subclasses pass to a schedule."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import MIRRORED, Curve, Restarts, schedule_of
from processes import run_python

import lrops
from lrops import reference

LEGACY = tf_keras.optimizers.legacy
CURVE = Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40)
EXPECTED = reference.warmup_decay(np.arange(60), **CURVE.arguments())
# No two steps past 2^24 have the same rate here.
LONG = {
    "decay": Curve(initial_learning_rate=1.0, warmup_steps=8, total_steps=2**25),
    "restarts": Restarts(initial_learning_rate=1.0, warmup_steps=8, first_decay_steps=2**25),
}
ODD = 2**24 + 1  # no float32 holds it


@pytest.fixture(autouse=True)
def warns_again(monkeypatch):
    """The warning of a rounded count, which is given once a process, is given once a test."""
    monkeypatch.setattr(lrops.schedules._warn_of_rounding, "__defaults__", ([],))


FLOATS = {
    "python": float,
    "list": lambda step: [float(step)],
    "numpy_float32": np.float32,
    "numpy_float64": np.array,
    "tensor": lambda step: tf.constant(step, tf.float32),
    "tensor_float64": lambda step: tf.constant([step], tf.float64),
    "tf_variable": lambda step: tf.Variable(step, dtype=tf.float32),
    "keras_variable": lambda step: keras.Variable(step, dtype="float64"),
}


@pytest.mark.parametrize("kind", FLOATS)
def test_a_whole_number_is_a_step(kind):
    step, schedule = FLOATS[kind](5.0), schedule_of(CURVE)
    for rate in (schedule(step), tf.function(lambda: schedule(step))(), schedule.on_host(step)):
        assert np.shape(rate) == np.shape(step) and (np.asarray(rate) == EXPECTED[5]).all()
    argument = tf.convert_to_tensor(step)
    for jit_compile in (False, True):
        assert (tf.function(schedule, jit_compile=jit_compile)(argument).numpy() == EXPECTED[5]).all()


@pytest.mark.parametrize("call", ["__call__", "on_host"])
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("value", [1.5, -0.25, np.nan, np.inf, -np.inf])
def test_what_is_no_whole_number_raises_where_it_can_be_seen(kind, value, call):
    with pytest.raises(ValueError, match="step counts optimizer updates and must be a whole number.*Received: step="):
        getattr(schedule_of(CURVE), call)(FLOATS[kind](value))


@pytest.mark.parametrize("call", ["__call__", "on_host"])
@pytest.mark.parametrize("value", [2.0**63, -(2.0**63) * 1.5, 1e30])
def test_what_int64_does_not_hold_raises_where_it_can_be_seen(value, call):
    for kind in FLOATS:
        with pytest.raises(ValueError, match="step must fit in int64"):
            getattr(schedule_of(CURVE), call)(FLOATS[kind](value))
    assert schedule_of(CURVE)(-(2.0**63)) == EXPECTED[0]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_what_cannot_be_seen_is_rounded_down_and_clamped(dtype, jit_compile):
    schedule = schedule_of(Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40, start_step=-4))
    function = tf.function(schedule, jit_compile=jit_compile)
    seen = [5.75, -0.5, 2.0**63, 1e30, np.inf, -(2.0**63), -1e30, -np.inf]
    assert function(tf.constant(seen, dtype)).numpy().tolist() == EXPECTED[[9, 3, 40, 40, 40, 0, 0, 0]].tolist()


@pytest.mark.parametrize("call", ["__call__", "on_host"])
@pytest.mark.parametrize("make", [np.asarray, tf.constant], ids=["numpy", "tensor"])
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16], ids=lambda dtype: dtype.name)
def test_what_cannot_count_is_a_type_error(dtype, make, call):
    step = make(5, dtype.as_numpy_dtype)
    with pytest.raises(TypeError, match=f"step must be of an integer dtype.*step of dtype {dtype.name}"):
        getattr(schedule_of(CURVE), call)(step)


def test_a_tutorial_plots_it():
    schedule = lrops.WarmupCosineDecay(1e-3, 4000, 40_000)
    rates = schedule(tf.range(40_000, dtype=tf.float32))
    np.testing.assert_array_equal(rates, schedule.on_host(np.arange(40_000)))


def test_it_maps_over_a_dataset_and_vectorizes():
    schedule, steps = schedule_of(CURVE), tf.range(60, dtype=tf.float32)
    assert [rate.numpy() for rate in tf.data.Dataset.from_tensor_slices(steps).map(schedule)] == EXPECTED.tolist()
    assert tf.vectorized_map(schedule, steps).numpy().tolist() == EXPECTED.tolist()


def test_a_number_on_the_host_is_what_callbacks_take():
    rate = schedule_of(CURVE).on_host(3)
    assert isinstance(rate, np.float32) and rate == EXPECTED[3]
    assert isinstance(schedule_of(CURVE, "float64").on_host(np.int64(3)), np.float64)
    assert isinstance(lrops.WarmupCosineDecay(tf.Variable(0.1), 4, 8).on_host(3), np.float32)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    rows = np.ones((2, 1), "float32")
    model.fit(rows, rows, verbose=0, callbacks=[keras.callbacks.LearningRateScheduler(schedule_of(CURVE).on_host)])
    assert model.optimizer.learning_rate == EXPECTED[0]


def cast(step):
    return tf.cast(step, tf.float32)


CASTS = {
    "cast": cast,
    "identity": lambda step: tf.identity(tf.identity(cast(step))),
    "twice": lambda step: tf.cast(cast(step), tf.float64),
    "keras": lambda step: keras.ops.cast(step, "float32"),
    "from_int32": lambda step: cast(tf.cast(step, tf.int32)),
}
STEPS = {
    "tf_variable": lambda: tf.Variable(ODD, dtype=tf.int64),
    "keras_variable": lambda: keras.Variable(ODD, dtype="int64"),
    "tensor": lambda: tf.constant(ODD, tf.int64),
}


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("curve", LONG)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("through", CASTS)
def test_a_graph_that_shows_the_cast_is_exact(through, step, curve, jit_compile, recwarn):
    step, schedule = STEPS[step](), schedule_of(LONG[curve], "float64")
    function = tf.function(lambda: schedule(CASTS[through](step)), jit_compile=jit_compile)
    assert schedule.on_host(ODD) != schedule.on_host(ODD - 1)
    assert function() == schedule.on_host(ODD)
    types = [operation.type for operation in function.get_concrete_function().graph.get_operations()]
    assert sum(name.startswith("Lrops>") for name in types) == 1 and "Floor" not in types
    assert not [one for one in recwarn if "float32" in str(one.message)]


def test_inside_branches_and_loops_too():
    step, schedule = tf.Variable(ODD, dtype=tf.int64), schedule_of(LONG["decay"], "float64")

    @tf.function
    def function(yes):
        branch = tf.cond(yes, lambda: schedule(cast(step)), lambda: tf.constant(0.0, tf.float64))
        _, loop = tf.while_loop(
            lambda i, _: i < 2, lambda i, _: (i + 1, schedule(cast(step + i))), [tf.constant(0, tf.int64), branch]
        )
        return branch, loop

    assert [float(rate) for rate in function(tf.constant(True))] == schedule.on_host([ODD, ODD + 1]).tolist()


def test_a_cast_in_an_xla_context_is_not_used_outside():
    step, schedule = tf.Variable(5, dtype=tf.int64), schedule_of(CURVE)

    @tf.function
    def function():
        (inside,) = tf.xla.experimental.compile(lambda: cast(step))
        return schedule(inside)

    assert function() == EXPECTED[5]


def test_a_variable_that_was_cast_into_is_read_at_its_own_time():
    """Its value may differ from the last number that was cast, so the cast is not undone."""
    counter, schedule = tf.Variable(0.0), schedule_of(CURVE)

    @tf.function
    def function(step):
        counter.assign(cast(step))
        counter.assign_add(3.0)
        return schedule(counter), schedule(tf.identity(counter)), schedule(cast(step) + 1)

    assert [float(rate) for rate in function(tf.constant(2, tf.int64))] == EXPECTED[[5, 5, 3]].tolist()


def test_a_step_that_a_nested_function_is_given():
    schedule = schedule_of(CURVE)
    captured = tf.function(lambda step: tf.function(lambda: schedule(step))())
    given = tf.function(lambda step: tf.function(schedule)(step))
    for function in (captured, given):
        assert tf.function(lambda step, function=function: function(cast(step)))(tf.constant(5)) == EXPECTED[5]


def test_a_curve_that_only_begins_beyond_2_24_warns():
    late = lrops.WarmupCosineDecay(1e-3, 1000, 10_000_000, alpha=0.0, start_step=20_000_000)
    with pytest.warns(UserWarning, match="was given the step as a float32"):
        late(np.float32(25_000_001))


@pytest.mark.parametrize("curve", LONG)
def test_a_float32_that_may_be_rounded_warns_once(curve):
    schedule = schedule_of(LONG[curve])
    with pytest.warns(UserWarning, match="float32.*2\\^24.*optimizer.iterations") as told:
        for call in (schedule, tf.function(schedule), schedule_of(LONG["decay"])):
            call(tf.constant(2.0**24))
    assert len(told) == 1
    assert told[0].filename == __file__


@pytest.mark.parametrize(
    "schedule, step",
    [
        (LONG["decay"], np.float64(5)),
        (LONG["decay"], 5.0),
        (CURVE, np.float32(5)),
        (LONG["decay"], np.float32(5)),
        (Curve(warmup_steps=8, total_steps=2**24), np.float32(5)),
        (Curve(warmup_steps=8, total_steps=2**30, alpha=1.0), np.float32(5)),
        (Curve(warmup_steps=8, total_steps=2**25, start_step=-(2**24)), np.float32(5)),
        (Restarts(first_decay_steps=1000, cycles=10, warmup_steps=8), np.float32(5)),
    ],
    ids=["float64", "python", "short", "small", "ends_at_2_24", "flat", "early", "restarts"],
)
def test_what_is_exact_does_not_warn(schedule, step, recwarn):
    schedule_of(schedule)(step)
    tf.function(lambda: schedule_of(schedule)(step))()
    assert not [one for one in recwarn if "float32" in str(one.message)]


# Nadam refuses every schedule.
OPTIMIZERS = ("Adadelta", "Adagrad", "Adam", "Adamax", "Ftrl", "RMSprop", "SGD")


def evaluations(function):
    """The nodes of our op in a function that was called, with all the functions that it calls."""
    *_, concrete = function._list_all_concrete_functions()  # a first one may have made variables
    graph = concrete.graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    return sum(node.op.startswith("Lrops>") for node in nodes)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "xla"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_legacy_optimizer(name, jit_compile):
    """Each moves as with a constant that is assigned the rate of each step."""
    weights = [[tf.Variable([1.0, 2.0]), tf.Variable([3.0])] for _ in range(2)]
    arguments = {"warmup_steps": 8, "total_steps": 40, "warmup_start": 0.5}
    schedule = lrops.WarmupCosineDecay(0.01, **arguments)
    ours, theirs = getattr(LEGACY, name)(schedule), getattr(LEGACY, name)(0.0)

    def step(optimizer, weights):
        optimizer.apply_gradients([(tf.ones_like(weight), weight) for weight in weights])

    for optimizer, variables in ((ours, weights[0]), (theirs, weights[1])):
        optimizer._create_all_weights(variables)
    one = step if jit_compile is None else tf.function(lambda: step(ours, weights[0]), jit_compile=jit_compile)
    for count in range(10):
        theirs.learning_rate = schedule.on_host(count)
        step(theirs, weights[1])
        one(ours, weights[0]) if jit_compile is None else one()
    for left, right in zip(*weights, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)
    assert jit_compile is None or evaluations(one) == 1


class Weight(tf_keras.layers.Layer):
    def build(self, shape):
        self.weight = self.add_weight(name="weight", shape=(), initializer="zeros")

    def call(self, x):
        return tf.cast(x, self.dtype) * self.weight


class Decoupled(LEGACY.SGD):
    """Overrides what TensorFlow Addons' and the Model Garden's optimizers do: reads the rate for each variable."""

    def _resource_apply_dense(self, gradient, variable, apply_state=None):
        rate = self._decayed_lr(variable.dtype.base_dtype)
        return variable.assign_sub(rate * gradient)


WRAPPERS = {
    "sgd": LEGACY.SGD,
    "addons": Decoupled,
    "loss_scale": lambda rate: tf_keras.mixed_precision.LossScaleOptimizer(LEGACY.SGD(rate)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{}, {"steps_per_execution": 4}, {"jit_compile": True}, {"run_eagerly": True}], ids=str
)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_fit_moves_a_weight_by_the_rates(wrapper, arguments):
    model = tf_keras.Sequential([tf_keras.Input((1,)), Weight()])
    model.compile(WRAPPERS[wrapper](schedule_of(CURVE)), lambda y, p: -p, **arguments)
    rows = np.ones((10, 1), "float32")
    model.fit(rows, rows, batch_size=1, epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == 20
    np.testing.assert_allclose(model.get_weights()[0], EXPECTED[:20].sum(dtype=np.float64), rtol=1e-5)


def test_an_optimizer_that_reads_the_rate_for_each_variable_evaluates_once():
    schedule, weights = schedule_of(CURVE), [tf.Variable(0.0) for _ in range(5)]
    optimizer = Decoupled(schedule)

    @tf.function
    def step():
        for _ in range(2):
            optimizer.apply_gradients([(tf.constant(-1.0), weight) for weight in weights])

    for _ in range(6):
        step()
    assert evaluations(step) == 2  # the count was raised in between
    for weight in weights:
        np.testing.assert_allclose(weight.numpy(), EXPECTED[:12].sum(dtype=np.float64), rtol=1e-5)


WRITERS = {
    "assign_add": lambda variable: variable.assign_add(1),
    "nested": lambda variable: tf.function(lambda: variable.assign_add(1))(),
    "branch": lambda variable: tf.cond(tf.constant(True), lambda: variable.assign_add(1), variable.read_value),
}


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_between_a_cast_and_its_evaluation_is_seen(writer, jit_compile):
    variable, schedule = tf.Variable(3, dtype=tf.int64), schedule_of(CURVE)

    @tf.function(jit_compile=jit_compile)
    def function():
        early = cast(variable)
        first = schedule(cast(variable))
        WRITERS[writer](variable)
        late = cast(variable)
        return first, schedule(late), schedule(early), schedule(late), schedule(variable), schedule(cast(variable))

    for count in (3, 4):
        rates = EXPECTED[[count, count + 1, count, count + 1, count + 1, count + 1]]
        np.testing.assert_array_equal(function(), rates)


@pytest.mark.filterwarnings("ignore:WarmupCosineDecay was given the step as a float32")  # by the last line
def test_a_legacy_optimizer_past_2_24_is_exact_in_a_graph():
    """In float32, since the weight is: near the end of a decay to 0, neighbours' rates differ there too."""
    schedule, weight = schedule_of(Curve(1.0, 8, 2**24 + 100, alpha=0.0)), tf.Variable(0.0)
    optimizer = LEGACY.SGD(schedule)

    @tf.function
    def step():
        optimizer.apply_gradients([(tf.constant(-1.0), weight)])

    step()
    for count in (ODD, ODD + 40):
        optimizer.iterations.assign(count)
        weight.assign(0.0)
        step()
        assert weight.numpy() == schedule.on_host(count)
        assert weight.numpy() != schedule.on_host(np.float32(count))


def test_it_is_saved_with_a_legacy_optimizer(tmp_path):
    model = tf_keras.Sequential([tf_keras.Input((1,)), Weight()])
    model.compile(LEGACY.Adam(schedule_of(CURVE)), "mse")
    rows = np.ones((4, 1), "float32")
    model.fit(rows, rows, batch_size=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = tf_keras.models.load_model(tmp_path / "model.keras", custom_objects={"Weight": Weight})
    assert again.optimizer.learning_rate.get_config() == schedule_of(CURVE).get_config()
    again.fit(rows, rows, batch_size=1, verbose=0)


@pytest.mark.parametrize("resource", [True, False])
def test_in_a_session(resource):
    schedule = schedule_of(LONG["decay"], "float64")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.get_variable("step", initializer=tf.constant(ODD, tf.int64), use_resource=resource)
        five = tf.compat.v1.placeholder_with_default(np.float64(5), [])
        rates = [schedule(step), schedule(cast(step)), schedule(five)]
        session.run(tf.compat.v1.global_variables_initializer())
        values = session.run(rates)
    assert values == schedule.on_host([ODD, ODD, 5]).tolist()


MIRRORED_LEGACY = """
import tf_keras
schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
with strategy.scope():
    weight = tf.Variable(0.0)
    optimizer = tf_keras.optimizers.legacy.SGD(schedule)
    optimizer._create_all_weights([weight])

@tf.function
def step():
    strategy.run(lambda: optimizer.apply_gradients([(tf.constant(0.5), weight)]))

for _ in range(12):
    step()
with strategy.scope():
    count = tf.Variable(5.0, dtype=tf.float64)
assert schedule(count) == tf.function(lambda: schedule(count))() == schedule.on_host(5)
expected = float(schedule.on_host(range(12)).sum(dtype="float64"))
assert abs(-weight.numpy() - expected) < 1e-6 * expected, (weight.numpy(), expected)
print("followed")
"""


def test_under_a_mirrored_strategy(tmp_path):
    script = MIRRORED.replace("import keras, lrops", "import keras, tf_keras, lrops") + MIRRORED_LEGACY
    result = run_python("-c", script, folder=tmp_path)
    assert result.returncode == 0 and "followed" in result.stdout, result.stderr
