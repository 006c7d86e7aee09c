"""docs/porting.md, executed: each old and new line give the same rate at every step that the page names."""

import re
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import optax
import peers
import pytest
import tensorflow as tf
import tf_keras

import lrops

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/porting.md").read_text(encoding="utf-8")
PEAK, TOTAL = 1e-3, 1000
STEPS = np.arange(TOTAL + TOTAL // 10 + 1)

# The greatest difference, in parts of the peak: a few roundings of a formula in float64 (measured: 2e-16) ...
FLOAT64 = 1e-15
# ... and a few roundings and a cosine in float32, of up to 2^-24 each (1.6e-7).
FLOAT32 = 8 * 2.0**-24
IN_FLOAT32 = ("Keras", "Model Garden", "TensorFlow tutorial", "optax")

SECTIONS = dict(re.findall(r"^## (.+)\n\n```python\n((?:.*\n)*?)```", DOCUMENT, re.MULTILINE))
# The first rate; the last step at which the two are the same, and what the old one does then; what it is.
ROWS = re.findall(r"^\| \[(.+)\]\(.+\) \| .+ \| `(.+)` \| (.+) \| (\w+) \|$", DOCUMENT, re.MULTILINE)
TABLE = {name: row for name, *row in ROWS}


def execute(code, keras=keras):
    """What a section's lines define, by name."""
    names = vars(peers) | {"lrops": lrops, "keras": keras, "optax": optax, "optimizer": SimpleNamespace(lr=PEAK)}
    exec(code, names)  # noqa: S102
    return names


def rates(schedule):
    return np.array([float(schedule(step)) for step in STEPS.tolist()])


def in_float64(schedule):
    """The same curve, without its rounding to float32."""
    return schedule.from_config(schedule.get_config() | {"dtype": "float64"})


def in_a_graph(schedule):
    """One step a call, which takes seconds without a graph."""
    return tf.function(schedule, input_signature=[tf.TensorSpec([], tf.int64)])


def check(name, names):
    first, last, _ = TABLE[name]
    last, _, then = last.partition(", ")
    old, new = names["old"], names["new"]
    tolerance = FLOAT32 if name.split(":")[0] in IN_FLOAT32 else FLOAT64
    if isinstance(new, lrops.LinearWarmup):  # of a schedule of Keras, which computes in float32
        new, tolerance = rates(in_a_graph(new)), FLOAT32
    else:
        new = in_float64(new)(STEPS).numpy()
    old = rates(in_a_graph(old) if name.startswith("Keras:") else old)
    same = STEPS if last == "any" else STEPS[: int(last) + 1]
    np.testing.assert_allclose(old[same] / PEAK, new[same] / PEAK, rtol=0, atol=tolerance)
    assert old[0] == pytest.approx(eval(first), abs=tolerance * PEAK)  # noqa: S307
    beyond = np.diff(old[len(same) - 1 :])
    assert np.all({"climbs": beyond > 0, "falls": np.append(beyond[:1] < 0, beyond <= 0), "": beyond == 0}[then])


@pytest.mark.parametrize("name", SECTIONS)
def test_old_and_new_are_the_same_curve(name):
    check(name, execute(SECTIONS[name]))
    words = set(re.findall(r"\w+", SECTIONS[name].replace("lrops.LinearWarmup", "")))
    transcribed = words & {key for key in vars(peers) if not key.startswith("_")}
    assert TABLE[name][2] == ("transcription" if transcribed else "package")


@pytest.mark.parametrize("name", [name for name in SECTIONS if name.startswith("Keras:")])
def test_tf_keras_is_the_same(name):
    compatible = SimpleNamespace(optimizers=tf_keras.optimizers, ops=SimpleNamespace(where=tf.where))
    check(name, execute(SECTIONS[name], keras=compatible))


def test_the_table_has_each_section_and_links_to_it():
    assert list(TABLE) == list(SECTIONS)
    assert f"the line to write for each of {len(SECTIONS)} schedules" in (ROOT / "README.md").read_text("utf-8")


def test_the_restart_that_comes_early_in_keras():
    early = 1000 * (2**12 - 1) - 1
    old = keras.optimizers.schedules.CosineDecayRestarts(1.0, 1000, t_mul=2.0)
    new = lrops.WarmupCosineRestarts(1.0, warmup_steps=0, first_decay_steps=1000, t_mul=2.0, m_mul=1.0, alpha=0.0)
    assert [round(float(rate), 3) for rate in (old(early), new(early), new(early + 1))] == [1, 0, 1]


def test_what_happens_after_the_end():
    falls = execute(SECTIONS["Megatron: inverse-square-root"])["old"]
    climbs = execute(SECTIONS["Transformers: cosine"])["old"]
    assert [round(old / PEAK, 2) for old in (falls(1000), falls(1001), climbs(1100))] == [0.32, 0.01, 0.03]


@pytest.mark.parametrize("traced, error", [(False, tf.errors.InvalidArgumentError), (True, TypeError)])
def test_the_old_tutorial_fails_on_an_int64_step(traced, error):
    step = tf.constant(3, tf.int64)
    old = peers.UncastCustomSchedule(d_model=10_000, warmup_steps=100)
    with pytest.raises(error, match=r"int64"):
        (tf.function(old) if traced else old)(step)
    new = execute(SECTIONS["TensorFlow tutorial: CustomSchedule"])["new"]
    assert float(old(tf.cast(step, tf.float32))) == pytest.approx(float(new(step)), rel=FLOAT32)
    assert float(new(tf.cast(step, tf.float32))) == float(new(step))


def test_where_a_least_rate_shows():
    arguments = {"factors": "constant * linear_warmup * rsqrt_decay", "base_learning_rate": 0.01, "warmup_steps": 100}
    default = rates(peers.create_learning_rate_scheduler(**arguments))
    none = rates(peers.create_learning_rate_scheduler(**arguments, min_learning_rate=0.0))
    assert np.flatnonzero(default != none).tolist() == [0] and default[0] == 1e-8


def test_what_the_document_says_of_overlapping_warmups():
    """The rate at the last step of the warmup and at the next one, and the highest, in parts of the peak."""
    cosine = peers.CosineDecayWithOffset(initial_learning_rate=PEAK, decay_steps=TOTAL, alpha=0.01)
    line = tf_keras.optimizers.schedules.PolynomialDecay(PEAK, TOTAL, 0.0)
    timm = peers.CosineLRScheduler(SimpleNamespace(lr=PEAK), t_initial=TOTAL, lr_min=1e-5, warmup_t=100)
    for old, expected in (
        (timm, [0.99, 0.976, 0.99]),
        (peers.LinearWarmup(cosine, 100, 0.0), [0.966, 0.976, 0.976]),  # Model Garden
        (peers.WarmUp(PEAK, line, 100), [0.99, 0.9, 0.99]),  # BERT
    ):
        curve = rates(old) / PEAK
        assert [round(rate, 3) for rate in (curve[99], curve[100], curve.max())] == expected


# What bullets of the page add to a section: what changes in the old line, and the decay of the new one.
LINE = "linear_schedule(1e-3, 1e-5, 900)"
FOLDED = [
    ("Transformers: warmup_stable_decay", '": 0.01', '": 0.01, "decay_type": "linear"', "linear"),
    ("Transformers: warmup_stable_decay", '": 0.01', '": 0.01, "decay_type": "1-sqrt"', "minus_sqrt"),
    ("Megatron: cosine", "style cosine", "style linear", "linear"),
    ("Megatron: WSD", "decay-style minus_sqrt", "decay-style linear", "linear"),
    ("optax: join_schedules", "cosine_decay_schedule(1e-3, decay_steps=900, alpha=0.01)", LINE, "linear"),
]


@pytest.mark.parametrize("name, before, after, decay", FOLDED)
def test_what_a_bullet_says_of_another_decay(name, before, after, decay):
    assert before in SECTIONS[name]
    old, _, new = SECTIONS[name].replace(before, after).rpartition("new = ")
    new = new.replace("WarmupCosineDecay", "WarmupDecay").replace(', decay="minus_sqrt"', "").rstrip(",)\n ")
    check(name, execute(f'{old}new = {new}, decay="{decay}")'))


def test_a_warmup_lr_rate_of_transformers():
    old = peers.get_scheduler(
        "cosine_warmup_with_min_lr", SimpleNamespace(lr=PEAK), 100, 1000, {"min_lr": 1e-5, "warmup_lr_rate": 0.1}
    )
    new = lrops.WarmupCosineDecay(PEAK, warmup_steps=99, total_steps=999, alpha=1e-5 / 1e-3, warmup_start=0.1)
    np.testing.assert_allclose(rates(old)[:1000] / PEAK, in_float64(new).on_host(STEPS[:1000]) / PEAK, atol=FLOAT64)
