"""A step in float32 or float64, such as tf_keras' legacy optimizers give, and what mixed precision casts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import MIRRORED
from processes import output_of
from training import ARGUMENTS, EXPECTED, WRITERS, apply, dense_model, evaluations, fit, model_of

import lrops

LEGACY = tf_keras.optimizers.legacy
COSINE = lrops.WarmupCosineDecay(*ARGUMENTS)
FAR = lrops.WarmupCosineDecay(1.0, 8, 2**25, dtype="float64")


def cast(step):
    return tf.cast(step, tf.float32)


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
    step = FLOATS[kind](5.0)
    for rate in (COSINE(step), tf.function(lambda: COSINE(step))(), COSINE.on_host(step)):
        assert np.shape(rate) == np.shape(step) and (np.asarray(rate) == EXPECTED[5]).all()
    argument = tf.convert_to_tensor(step)
    for jit_compile in (False, True):
        assert (tf.function(COSINE, jit_compile=jit_compile)(argument).numpy() == EXPECTED[5]).all()


@pytest.mark.parametrize("call", ["__call__", "on_host"])
@pytest.mark.parametrize("kind", FLOATS)
def test_what_is_no_step_raises_where_it_can_be_seen(kind, call):
    evaluate = getattr(COSINE, call)
    for value in (1.5, -0.25, np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="step counts optimizer updates and must be a whole number.*Received: ste"):
            evaluate(FLOATS[kind](value))
    for value in (2.0**63, -(2.0**63) * 1.5, 1e30):
        with pytest.raises(ValueError, match="step must fit in int64"):
            evaluate(FLOATS[kind](value))
    assert (np.asarray(evaluate(FLOATS[kind](-(2.0**63)))) == EXPECTED[0]).all()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_what_cannot_be_seen_is_rounded_down_and_clamped(dtype, jit_compile):
    schedule = lrops.WarmupCosineDecay(*ARGUMENTS, start_step=-4)
    function = tf.function(schedule, jit_compile=jit_compile)
    seen = [5.75, -0.5, 2.0**63, 1e30, np.inf, -(2.0**63), -1e30, -np.inf]
    assert function(tf.constant(seen, dtype)).numpy().tolist() == EXPECTED[[9, 3, 40, 40, 40, 0, 0, 0]].tolist()


def test_a_float32_count_is_exact_up_to_2_24():
    count = tf.Variable(2**24, dtype=tf.int64)
    function = tf.function(lambda: FAR(cast(count)))
    assert function() == FAR(np.float32(2**24)) == FAR.on_host(2**24)
    count.assign(2**24 + 1)
    assert function() == FAR(np.float32(2**24 + 1)) == FAR.on_host(2**24) != FAR(count)


def test_a_number_on_the_host_is_what_callbacks_take():
    assert isinstance(COSINE.on_host(3), np.float32) and COSINE.on_host(3) == EXPECTED[3]
    assert isinstance(lrops.WarmupCosineDecay(*ARGUMENTS, dtype="float64").on_host(np.int64(3)), np.float64)
    assert isinstance(lrops.WarmupCosineDecay(tf.Variable(0.1), 4, 8).on_host(3), np.float32)
    model = model_of(0.1)
    fit(model, keras.callbacks.LearningRateScheduler(COSINE.on_host))
    assert model.optimizer.learning_rate == EXPECTED[1]


def test_a_cast_in_an_xla_context_or_in_the_function_outside():
    step = tf.Variable(5, dtype=tf.int64)
    captured = tf.function(lambda step: tf.function(lambda: COSINE(step))())
    given = tf.function(lambda step: tf.function(COSINE)(step))

    @tf.function
    def function():
        (inside,) = tf.xla.experimental.compile(lambda: cast(step))
        return COSINE(inside), captured(cast(step)), given(cast(step))

    assert list(map(float, function())) == EXPECTED[[5, 5, 5]].tolist()


# Nadam takes no schedule.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["Adadelta", "Adagrad", "Adam", "Adam, XLA", "Adamax", "Ftrl", "RMSprop", "SGD"])
def test_every_legacy_optimizer(name):
    """Each moves as with a constant that is assigned the rate of each step."""
    schedule = lrops.WarmupCosineDecay(*ARGUMENTS, warmup_start=0.5)
    make = getattr(LEGACY, name.removesuffix(", XLA"))
    ours, theirs = make(schedule), make(0.0)
    weight, expected = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 2.0])
    ours._create_all_weights([weight])
    step = tf.function(lambda: apply(ours, tf.ones(2), weight), jit_compile="XLA" in name)
    for count in range(10):
        step()
        theirs.learning_rate = schedule.on_host(count)
        apply(theirs, tf.ones(2), expected)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    assert evaluations(step) == 1


class Decoupled(LEGACY.SGD):
    """Overrides what TensorFlow Addons' and the Model Garden's optimizers do: reads the rate for each variable."""

    def _resource_apply_dense(self, gradient, variable, apply_state=None):
        rate = self._decayed_lr(variable.dtype.base_dtype)
        return variable.assign_sub(rate * gradient)


@pytest.mark.parametrize("schedule", [COSINE, lrops.LinearWarmup(COSINE, 0)])
def test_an_optimizer_that_reads_the_rate_for_each_variable_evaluates_once(schedule):
    weights, optimizer = [tf.Variable(0.0) for _ in range(5)], Decoupled(schedule)
    optimizer._create_all_weights(weights)

    @tf.function
    def step():
        for _ in range(2):
            optimizer.apply_gradients([(tf.constant(-1.0), weight) for weight in weights])

    for _ in range(6):
        step()
    assert evaluations(step) == 2  # the count was raised in between
    for weight in weights:
        np.testing.assert_allclose(weight.numpy(), EXPECTED[:12].sum(dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("writer", ["assign_add", "nested", "in_a_branch"])
def test_a_write_between_a_cast_and_its_evaluation_is_seen(writer):
    variable = tf.Variable(3, dtype=tf.int64)

    @tf.function
    def function():
        early = cast(variable)
        first = COSINE(cast(variable))
        WRITERS[writer](variable)
        late = cast(variable)
        return first, COSINE(late), COSINE(early), COSINE(late), COSINE(variable), COSINE(cast(variable))

    for count in (3, 4):
        rates = EXPECTED[[count, count + 1, count, count + 1, count + 1, count + 1]]
        np.testing.assert_array_equal(function(), rates)


@pytest.mark.parametrize("schedule", [FAR, lrops.LinearWarmup(FAR, 0)])
def test_a_count_of_another_dtype_is_another_step(schedule):
    count = tf.Variable(2**24 + 1, dtype=tf.int64)

    @tf.function
    def function():
        read = tf.convert_to_tensor(count)
        steps = cast(read), tf.cast(cast(read), tf.float64), tf.cast(read, tf.float64), read
        return [schedule(step) for step in steps]

    np.testing.assert_array_equal(function(), FAR.on_host([2**24, 2**24, 2**24 + 1, 2**24 + 1]))


def test_it_is_saved_with_a_legacy_optimizer(tmp_path):
    fit(model := dense_model(LEGACY.Adam(COSINE), tf_keras))
    model.save(tmp_path / "model.keras")
    again = tf_keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.learning_rate.get_config() == COSINE.get_config()


@pytest.mark.parametrize("resource", [True, False])
def test_in_a_session(resource):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.get_variable("step", initializer=tf.constant(7, tf.int64), use_resource=resource)
        five = tf.compat.v1.placeholder_with_default(np.float64(5), [])
        rates = [COSINE(step), COSINE(cast(step)), COSINE(five)]
        session.run(tf.compat.v1.global_variables_initializer())
        assert session.run(rates) == EXPECTED[[7, 7, 5]].tolist()


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
"""


def test_under_a_mirrored_strategy(tmp_path):
    output_of(MIRRORED + MIRRORED_LEGACY, folder=tmp_path)


# What a layer computes in, which casts its weights. "inside" is a layer in float32 that is called by one in float16:
# Keras 3 casts its float64 weights, tf_keras does not.
CASTS = [(module, policy) for module in (keras, tf_keras) for policy in ("mixed_float16", "mixed_bfloat16")]
CASTS = pytest.mark.parametrize(("module", "policy"), [*CASTS, (keras, "inside")])
TRACED = pytest.mark.parametrize("traced", [False, True])


def in_a_layer(module, policy, evaluate, traced, value, dtype):
    """What `evaluate` makes of a layer's weight in the layer's call."""
    weight = {"initializer": module.initializers.Constant(value), "dtype": dtype}

    class Evaluates(module.layers.Layer):
        def build(self, shape):
            self.number = self.add_weight(name="number", shape=(), trainable=False, **weight)

        def call(self, x):
            return evaluate(self.number)

    inner = Evaluates(dtype="float32" if policy == "inside" else policy)
    layer = module.layers.Lambda(lambda x: inner(x), dtype="mixed_float16") if policy == "inside" else inner
    call = tf.function(layer, autograph=False) if traced else layer
    return np.asarray(call(tf.ones([1, 1])))


@TRACED
@CASTS
def test_a_count_in_a_layers_weight_is_exact_or_rejected(module, policy, traced):
    schedule = lrops.WarmupDecay(1.0, 0, 100_000, alpha=0.0, decay="linear")
    warmed = lrops.LinearWarmup(schedule, 0)
    for evaluate in (schedule, warmed):
        assert in_a_layer(module, policy, evaluate, traced, 70_001, "int64") == schedule.on_host(70_001)
    dtype = "float64" if policy == "inside" else "float32"
    for evaluate in (schedule, warmed, schedule.on_host, warmed.on_host):
        with pytest.raises(TypeError, match="Keep the count in an int64 variable, which mixed precision does not rou"):
            in_a_layer(module, policy, evaluate, traced, 7, dtype)


@TRACED
@CASTS
@pytest.mark.parametrize("method", ["__call__", "on_host"])
def test_a_peak_in_a_layers_weight_is_exact_or_rejected(method, module, policy, traced):
    def made(peak):
        return lrops.WarmupCosineDecay(peak, 0, 10)

    def at_5(schedule):
        return getattr(schedule, method)(5)

    def rejected():
        return pytest.raises(TypeError, match="initial_learning_rate is a variable that .*Keep the peak in a tf.Varia")

    with rejected():
        in_a_layer(module, policy, made, traced, 5.8724e-4, "float64" if policy == "inside" else "float32")
    peak = module.layers.Layer(dtype="mixed_float16").add_weight(name="peak", shape=(), dtype="float32")
    peak.assign(5.8724e-4)
    of_layer, plain = made(peak), made(tf.Variable(5.8724e-4))
    expected = made(float(np.float32(5.8724e-4))).on_host(5)
    assert at_5(of_layer) == expected  # outside of a layer's call
    with rejected():
        in_a_layer(module, "mixed_float16", lambda _: at_5(of_layer), traced, 0.0, "float32")
    assert in_a_layer(module, policy, lambda _: at_5(plain), traced, 0.0, "float32") == expected
