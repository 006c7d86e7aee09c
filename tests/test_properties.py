"""Hypothesis searches for a curve, a step or a node in a file that breaks a rule."""

import dataclasses
import math
import os

import numpy as np
import pytest
import tensorflow as tf
from conftest import DTYPES, INT64, MAX_STEPS, PRECISION, Curve, Decay, InverseSqrt, Restarts
from google.protobuf.message import DecodeError
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from test_exactness import TOLERANCE_ULP, distance, true_rates

from lrops.ops import as_attributes

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 0))  # of `make fuzz`, which draws others each time
settings.register_profile("lrops", deadline=None, derandomize=not EXAMPLES, max_examples=EXAMPLES or 300)
settings.load_profile("lrops")

ratios = st.floats(0, 1)
decays = st.sampled_from(["cosine", "linear", "minus_sqrt"])
int64s = st.integers(INT64.min, INT64.max)


@st.composite
def curves(draw, longest=MAX_STEPS):
    total = draw(st.integers(1, longest) | st.integers(1, 1000))
    warmup = draw(st.integers(0, total - 1))
    return Decay(
        decay=draw(decays),
        initial_learning_rate=draw(st.floats(1e-30, 1e30) | st.floats(1e-6, 1)),
        warmup_steps=warmup,
        total_steps=total,
        alpha=draw(ratios),
        hold_steps=draw(st.integers(0, total - 1 - warmup)),
        warmup_start=draw(ratios),
        start_step=draw(st.integers(-MAX_STEPS, MAX_STEPS) | st.just(0)),
    )


@st.composite
def inverse_sqrts(draw):
    warmup = draw(st.integers(0, MAX_STEPS) | st.integers(0, 1000))
    scale = st.integers(1, MAX_STEPS) | st.integers(1, 1000)
    return InverseSqrt(
        initial_learning_rate=draw(st.floats(1e-30, 1e30) | st.floats(1e-6, 1)),
        warmup_steps=warmup,
        timescale=draw(scale | st.none() if warmup else scale),
        hold_steps=draw(st.integers(0, MAX_STEPS) | st.just(0)),
        warmup_start=draw(ratios),
        start_step=draw(st.integers(-MAX_STEPS, MAX_STEPS) | st.just(0)),
    )


@st.composite
def restarts(draw):
    cycles = draw(st.integers(1, 64))
    curve = Restarts(
        initial_learning_rate=draw(st.floats(1e-30, 1e30) | st.floats(1e-6, 1)),
        warmup_steps=draw(st.integers(0, 2**40) | st.just(0)),
        first_decay_steps=draw(st.integers(1, 2**40) | st.integers(1, 100)),
        t_mul=draw(st.floats(1, 1.5) | st.floats(1, 1e6) | st.sampled_from([1.0, 1.5, 2.0, 3.0])),
        m_mul=draw(st.floats(0, 1, exclude_min=True)),
        alpha=draw(ratios),
        cycles=cycles,
        warmup_start=draw(ratios),
        start_step=draw(st.integers(-MAX_STEPS, MAX_STEPS) | st.just(0)),
    )
    return dataclasses.replace(curve, cycles=max(1, len(curve.starts()) - 1))  # those that fit


def rates(curve, steps, dtype="float64"):
    steps = [min(max(step, int(INT64.min)), int(INT64.max)) for step in steps]
    return curve.native(np.array(steps, np.int64), **curve.arguments(dtype=dtype))


def check(curve, steps, found, dtype):
    """Whether these rates are correctly rounded."""
    assert (distance(found, true_rates(curve, steps), dtype) <= TOLERANCE_ULP[dtype]).all()


def near(curve, step):
    """A step of the curve, or one near it."""
    return curve.start_step + step


@given(curves(), st.data(), st.sampled_from(("float32", "float64")))
def test_every_rate_is_the_true_one(curve, data, dtype):
    inside = st.integers(0, curve.total_steps).map(lambda step: near(curve, step))
    steps = data.draw(st.lists(inside | int64s, min_size=1, max_size=8))
    check(curve, steps, rates(curve, steps, dtype), dtype)


@given(inverse_sqrts(), st.data(), st.sampled_from(("float32", "float64")))
def test_an_inverse_square_root_too(curve, data, dtype):
    held = curve.warmup_steps + curve.hold_steps
    exact = st.integers(1, 40).map(lambda part: held + (part**2 - 1) * (curve.timescale or curve.warmup_steps))
    steps = data.draw(st.lists(st.integers(0, 2 * held) | exact | int64s, min_size=1, max_size=8))
    steps = [min(max(near(curve, step), int(INT64.min)), int(INT64.max)) for step in steps]
    check(curve, steps, rates(curve, steps, dtype), dtype)
    assert (np.diff(rates(curve, sorted({step for step in steps if step >= near(curve, held)}), dtype)) <= 0).all()


@given(restarts(), st.data())
def test_in_every_cycle_too(curve, data):
    at = st.sampled_from(curve.starts()).flatmap(lambda start: st.integers(start - 2, start + 2))
    steps = data.draw(st.lists(at | st.integers(0, curve.starts()[-1]), min_size=1, max_size=8))
    steps = [near(curve, step) for step in steps]
    check(curve, steps, rates(curve, steps, "float32"), "float32")


@given(curves(), st.lists(int64s, min_size=2, max_size=20))
def test_never_above_the_peak_nor_below_the_ends(curve, steps):
    found = rates(curve, steps)
    peak = curve.initial_learning_rate
    lowest = peak * min(curve.alpha, curve.warmup_start)
    assert (found <= peak).all() and (found >= lowest * (1 - 1e-15)).all()


@given(curves(), st.data())
def test_rises_in_warmup_and_never_after(curve, data):
    inside = st.lists(st.integers(0, curve.warmup_steps), min_size=2, max_size=20)
    warmup = rates(curve, [near(curve, step) for step in sorted(data.draw(inside))])
    after = st.lists(st.integers(curve.warmup_steps, MAX_STEPS), min_size=2, max_size=20)
    decay = rates(curve, [near(curve, step) for step in sorted(data.draw(after))])
    assert (np.diff(warmup) >= 0).all() and (np.diff(decay) <= 0).all()


@given(curves(), st.integers(-20, 20), st.data())
def test_scaling_the_peak_scales_the_curve(curve, power, data):
    steps = [near(curve, step) for step in data.draw(st.lists(st.integers(-5, curve.total_steps), min_size=1))]
    scaled = Decay(**curve.arguments(initial_learning_rate=math.ldexp(curve.initial_learning_rate, power)))
    found = rates(curve, steps)
    normal = found >= 2.0**-1000  # a subnormal has fewer digits, and a power of two changes how many
    np.testing.assert_array_equal(rates(scaled, steps)[normal], np.ldexp(found, power)[normal])


@given(curves(2**40), st.integers(-(2**40), 2**40), st.data())
def test_start_step_shifts_the_curve(curve, by, data):
    assume(abs(curve.start_step + by) <= MAX_STEPS)
    steps = [near(curve, step) for step in data.draw(st.lists(st.integers(-5, curve.total_steps + 5), min_size=1))]
    moved = Decay(**curve.arguments(start_step=curve.start_step + by))
    np.testing.assert_array_equal(rates(moved, [step + by for step in steps]), rates(curve, steps))


# ---- The rules again, in exact integers, from the docstrings of the schedules.


def holds(dtype, peak):
    """Whether a peak rounds neither to 0 nor to infinity. float64 has every one."""
    precision, smallest = PRECISION[dtype]
    if dtype == "float64":
        return True
    # Half of the smallest number ties to 0; half a unit above the largest, to infinity.
    bias = 2 - precision - smallest
    return math.ldexp(1, smallest - 1) < peak < math.ldexp(2 - math.ldexp(1, -precision), bias)


def good(curve, dtype):
    """Whether the hyper-parameters keep every rule."""
    if not (0 < curve.initial_learning_rate < math.inf and holds(dtype, curve.initial_learning_rate)):
        return False
    if not (0 <= curve.warmup_start <= 1 and abs(curve.start_step) <= MAX_STEPS):
        return False
    if not 0 <= curve.warmup_steps <= MAX_STEPS:
        return False
    if isinstance(curve, InverseSqrt):
        scale = curve.warmup_steps if curve.timescale is None else curve.timescale
        return 1 <= scale <= MAX_STEPS and 0 <= curve.hold_steps <= MAX_STEPS
    if not 0 <= curve.alpha <= 1:
        return False
    if isinstance(curve, Curve):
        return (
            curve.decay in ("cosine", "linear", "minus_sqrt")
            and 0 <= curve.hold_steps
            and curve.warmup_steps + curve.hold_steps < curve.total_steps <= MAX_STEPS
        )
    if not (curve.first_decay_steps >= 1 and 1 <= curve.t_mul < math.inf and 0 < curve.m_mul <= 1):
        return False
    if curve.cycles is not None and curve.cycles < 1:
        return False
    if curve.t_mul == curve.m_mul == 1:
        return curve.warmup_steps + (curve.cycles or 1) * curve.first_decay_steps <= MAX_STEPS
    if (curve.cycles or 1) > 64:
        return False
    asked = Restarts(**curve.arguments(cycles=curve.cycles or 65))
    fitting = (
        (MAX_STEPS - asked.warmup_steps) // asked.first_decay_steps if asked.t_mul == 1 else len(asked.starts()) - 1
    )
    return fitting >= curve.cycles if curve.cycles else 1 <= fitting <= 64


def mostly(usual, any_at_all):
    """Mostly the usual, sometimes anything."""
    return st.integers(0, 15).flatmap(lambda number: any_at_all if number == 15 else usual)


any_ratio = mostly(ratios, st.floats())
any_peak = mostly(st.sampled_from([1e-3, 1.0, 6e4, 1e-7]) | st.floats(1e-30, 1e30), st.floats())
any_count = mostly(st.integers(0, 1000) | st.integers(0, MAX_STEPS), int64s)
shared = {"initial_learning_rate": any_peak, "warmup_steps": any_count, "warmup_start": any_ratio}
shared |= {"start_step": mostly(st.integers(-MAX_STEPS, MAX_STEPS), int64s)}
any_curve = st.builds(
    Decay,
    **shared,
    alpha=any_ratio,
    total_steps=any_count,
    hold_steps=any_count,
    decay=mostly(decays, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)),
)
any_curve |= st.builds(InverseSqrt, **shared, timescale=st.none() | any_count, hold_steps=any_count)
any_curve |= st.builds(
    Restarts,
    **shared,
    alpha=any_ratio,
    first_decay_steps=any_count,
    t_mul=mostly(st.sampled_from([1.0, 1.5, 2.0, 3.0]) | st.floats(1, 2), st.floats()),
    m_mul=mostly(st.just(1.0) | st.floats(0, 1, exclude_min=True), st.floats()),
    cycles=st.none() | mostly(st.integers(1, 66), int64s),
)


@pytest.mark.slow
@settings(max_examples=max(3000, EXAMPLES))
@given(any_curve, st.sampled_from(DTYPES), st.lists(int64s, min_size=1, max_size=2))
def test_the_rules_take_what_is_good_and_nothing_else(curve, dtype, steps):
    try:
        found = rates(curve, steps, dtype)
    except ValueError as error:
        assert not good(curve, dtype), error
        assert "Received: " in str(error)
        return
    assert good(curve, dtype)
    check(curve, steps, found, dtype)


# ---- Nodes of the ops with any attributes, inputs and steps, as a damaged or forged file may hold them.

OPS = {Decay: "Lrops>WarmupDecay", InverseSqrt: "Lrops>WarmupInverseSqrt", Restarts: "Lrops>WarmupCosineRestarts"}
AttrValue, NodeDef = tf.compat.v1.AttrValue, tf.compat.v1.NodeDef
values = {
    "s": st.binary(max_size=8)
    | st.floats().map(lambda number: repr(number).encode())
    | st.sampled_from([b" 1\n", b"1\0", b"1,5", b"1_0", b"1e400", b"0x1p-3"]),
    "i": st.integers(-2, 70) | int64s,
    "type": st.sampled_from([tf.as_dtype(name).as_datatype_enum for name in DTYPES]),
}
values = {kind: st.builds(AttrValue, **{kind: value}) for kind, value in values.items()}
others = st.sampled_from([AttrValue(), AttrValue(b=True), AttrValue(f=1), AttrValue(type=99)])


def attribute(value):
    """A value as an attribute of a node."""
    if isinstance(value, tf.DType):
        return AttrValue(type=value.as_datatype_enum)
    return AttrValue(s=value.encode()) if isinstance(value, str) else AttrValue(i=value)


@st.composite
def nodes(draw):
    """A valid curve, and its node with one or two changes."""
    curve = draw(curves() | inverse_sqrts() | restarts())
    attributes = as_attributes(curve.arguments(dtype=draw(st.sampled_from(DTYPES))))
    node = NodeDef(op=OPS[type(curve)], input=["step"], attr={name: attribute(attributes[name]) for name in attributes})
    changes = st.sampled_from(["replace", "replace", "replace", "remove", "inputs", "bytes"])
    for change in draw(st.lists(changes, min_size=1, max_size=2)):
        name = draw(st.sampled_from([*attributes, "other"]))
        if change == "replace":
            same_kind = values.get(node.attr[name].WhichOneof("value"), others)
            node.attr[name].CopyFrom(draw(mostly(same_kind, st.one_of(*values.values(), others))))
        elif change == "remove":
            node.attr.pop(name, None)
        elif change == "inputs":
            node.input[:] = ["step"] * draw(st.sampled_from([0, 2]))
        else:
            text = bytearray(node.SerializeToString(deterministic=True))
            text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
            try:
                node.ParseFromString(bytes(text))
            except DecodeError:
                reject()
    assume(node.op == OPS[type(curve)])
    return curve, node


def load(node, dtype, folder):
    """Loads a saved model that holds the node. Returns the node's operation and a function that runs it."""
    node.name = "rate"
    step = NodeDef(name="step", op="Placeholder", attr={"dtype": attribute(dtype)})
    graph = {"node": [step, node], "versions": {"producer": tf.version.GRAPH_DEF_VERSION}}
    model = SavedModel(meta_graphs=[{"graph_def": graph, "meta_info_def": {"tags": ["serve"]}}])
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    loaded = tf.saved_model.load(folder)
    return loaded.graph.get_operation_by_name("rate"), loaded.prune("step:0", "rate:0")


def number(text):
    """The number that TensorFlow reads from a text: also a hexadecimal one, but unlike Python not 1_0."""
    return float.fromhex(text.decode()) if b"x" in text.lower() else float(text.replace(b"_", b"?"))


@given(
    nodes(),
    mostly(st.just(tf.int64), st.sampled_from([tf.int32, tf.uint64, tf.float32, tf.string])),
    arrays(
        np.int64, array_shapes(min_dims=0, max_dims=9, min_side=0, max_side=3), elements=int64s | st.integers(0, 999)
    ),
)
def test_any_node_gives_a_rate_or_an_error(tmp_path_factory, changed, dtype, steps):
    curve, node = changed
    try:
        operation, evaluate = load(node, dtype, tmp_path_factory.getbasetemp())
    except ValueError:  # TensorFlow's importer has rejected it
        return
    read = {name: operation.get_attr(name) for name in curve.arguments(dtype=None)}
    if "decay" in read:
        read["decay"] = read["decay"].decode()
    read |= {name: None for name in ("cycles", "timescale") if read.get(name) == 0}
    try:
        read |= {name: number(text) for name, text in read.items() if isinstance(text, bytes)}
        expected = curve.native(steps, **read | {"dtype": read["dtype"].name})
    except ValueError:
        expected = None
    try:
        found = evaluate(tf.constant(steps)).numpy()
    except tf.errors.InvalidArgumentError as error:
        if "Failed to bind all placeholders" not in str(error):  # TensorFlow's, for an attribute without a value
            assert expected is None and f"{node.op}: " in str(error) and "Received: " in str(error), error
        return
    assert expected is not None, found
    assert found.tobytes() == expected.tobytes() and found.shape == steps.shape
    assert np.isfinite(found.astype(float)).all()
