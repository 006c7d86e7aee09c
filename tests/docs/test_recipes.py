"""Runs docs/recipes.md section by section, and checks what each is for. Runs the lines of docs/curves.md."""

import copy
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from training import BOTH, EXPECTED, count, fit, model_of, schedule

import lrops

DOCS = Path(__file__).parents[2] / "docs"
CURVES = re.findall(r"```python\n((?:.*\n)*?)```", (DOCS / "curves.md").read_text(encoding="utf-8"))
DOCUMENT = (DOCS / "recipes.md").read_text(encoding="utf-8")
SETUP, *SECTIONS = ("".join(re.findall(r"```python\n((?:.*\n)*?)```", part)) for part in DOCUMENT.split("\n## "))
SECTIONS = dict(zip(re.findall("^## (.+)$", DOCUMENT, re.MULTILINE), SECTIONS, strict=True))


def iterations(names):
    return count(names["model"].optimizer)


def check_count(names):
    assert iterations(names) == names["total"] == 160


def check_log(names):
    assert names["history"].history["learning_rate"] == list(names["schedule"].on_host([31, 63, 95, 127, 159]))
    assert len(Path("rate.csv").read_text().splitlines()) == 1 + 16
    assert list(Path("logs").iterdir())


def check_look(names):
    assert Path("rate.png").stat().st_size > 10_000
    assert names["rates"].shape == (160,)


def check_resume(names):
    assert iterations(names) == 160
    assert names["model"].optimizer.learning_rate == names["schedule"](160)


def check_longer(names):
    new = names["model"].optimizer._learning_rate
    assert iterations(names) == 160 + 96
    assert names["history"].history["learning_rate"] == list(new.on_host([191, 223, 255]))
    assert new(160) == 0 and new(168) == np.float32(5e-3)
    # What the section says of a longer hold.
    usual, longer = (lrops.WarmupCosineDecay(1e-3, 10, 200 + more, hold_steps=50 + more) for more in (0, 30))
    np.testing.assert_array_equal(usual.on_host(range(61)), longer.on_host(range(61)))


def check_accumulate(names):
    assert iterations(names) == 160 / 4
    assert names["optimizer"].learning_rate == names["schedule"](160)
    assert names["schedule"].warmup_steps == 4 * 5


def check_batch_size(names):
    schedule = names["schedule"]
    assert iterations(names) == schedule.total_steps == 20 * 8
    assert [float(schedule(step)) for step in (0, 5 * 8)] == pytest.approx([0.01, 0.04])


def check_batch_size_midway(names):
    schedule = names["schedule"]
    assert iterations(names) == schedule.total_steps == 5 * 32 + 15 * 8
    assert float(schedule(32)) == pytest.approx(0.04)
    assert names["model"].optimizer.learning_rate == schedule(280)


def check_constant(names):
    np.testing.assert_array_equal(names["constant"].on_host(np.arange(16, 10_000)), np.float32(1e-2))
    assert names["floored"].on_host(160) == np.float32(2e-5)


def check_any_schedule(names):
    schedule, decay, own = names["schedule"], names["decay"], names["own"]
    assert [float(schedule(step)) for step in (0, 8)] == pytest.approx([0, 0.005])
    assert all(schedule(step) == decay(step - 16) for step in (16, 40, 160))
    assert own(24) == np.float32(1e-2) and own(25) < own(24)
    assert names["history"].history["learning_rate"] == [schedule(step) for step in (31, 63, 95, 127, 159)]
    saved = names["keras"].saving.load_model("model.keras").optimizer._learning_rate
    assert saved.get_config() == schedule.get_config()
    assert type(lrops.LinearWarmup.from_config(own.get_config()).schedule) is names["InverseTime"]


def check_middle(names):
    optimizer, counted = names["optimizer"], names["counted"]
    assert float(optimizer.learning_rate) == float(counted.learning_rate)
    assert optimizer.learning_rate == counted._learning_rate.on_host(96)


def check_cool_down(names):
    cooled = names["model"].optimizer._learning_rate
    assert iterations(names) == 128 and names["now"] == 64
    assert cooled.on_host(64) == np.float32(1e-2)
    assert cooled.on_host(128) == np.float32(1e-5)


def check_divides(names):
    keras, model = names["keras"], names["model"]
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    start = {"warmup_start": 0.1}
    for nan, arguments in ((True, {}), (True, start | {"alpha": 0.0}), (False, {"start_step": -1}), (False, start)):
        schedule = lrops.WarmupCosineDecay(1e-2, warmup_steps=2, total_steps=4, **arguments)
        weight = keras.Variable(1.0)
        optimizer = keras.optimizers.Ftrl(schedule)
        for _ in range(6):
            optimizer.apply([names["tf"].constant(1.0)], [weight])
        assert np.isnan(weight.numpy()) == nan, arguments


def check_several(names):
    history = names["history"].history
    for name, curve in zip("gd", names["schedules"], strict=True):
        assert history[f"learning_rate_{name}"] == list(curve.on_host([31, 63, 95, 127, 159]))


def check_plateau(names):
    assert iterations(names) == names["schedule"].total_steps
    names["peak"].assign(1.0)
    plateau = names["ReducePeakOnPlateau"](names["peak"], factor=0.25, patience=2)
    peaks = []
    for loss in (3.0, 2.0, 2.0, 2.5, 2.0, 1.0, 1.0, 1.0):
        plateau.on_epoch_end(0, {"val_loss": loss})
        peaks.append(float(names["schedule"](32)))
    assert peaks == [1, 1, 1, 0.25, 0.25, 0.25, 0.25, 0.0625]


def check_weight_decay(names):
    schedule, factor = names["schedule"], names["ScheduledAdamW"].fall
    names["model"].save("model.keras")
    optimizer = names["keras"].saving.load_model("model.keras").optimizer
    assert optimizer.get_config()["weight_decay"] == 0.1
    weight = names["keras"].Variable(1.0)
    optimizer = optimizer.from_config(optimizer.get_config())
    expected = 1.0
    for step in range(170):  # without a gradient, decay alone moves a weight
        optimizer.apply([names["tf"].constant(0.0)], [weight])
        expected *= 1 - 0.1 * float(factor(step)) * float(schedule(step))
    assert float(weight) == pytest.approx(expected, rel=1e-5)
    assert [float(factor(step)) for step in (0, 16, 160)] == pytest.approx([1, 1, 0.1])


# The functions above are in the order of the page.
CHECKS = dict(zip(SECTIONS, [check for name, check in globals().items() if name.startswith("check_")], strict=True))


@pytest.mark.parametrize("name", SECTIONS)
def test_recipe(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "recipe"}
    exec(SETUP + SECTIONS[name], names)  # noqa: S102
    CHECKS[name](names)


READS_THE_COUNT = [(name, "keras") for name, code in SECTIONS.items() if "iterations" in code]
# In tf_keras the weight decay of ScheduledAdamW is no property.
READS_THE_COUNT += [(name, "tf_keras") for name, _ in READS_THE_COUNT if "ScheduledAdamW" not in SECTIONS[name]]


@pytest.mark.parametrize("name, flavour", READS_THE_COUNT)
def test_a_recipe_that_reads_the_count_runs_under_a_strategy(name, flavour, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "recipe"}
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        exec((SETUP + SECTIONS[name]).replace("import keras", f"import {flavour} as keras"), names)  # noqa: S102
    if flavour == "keras":
        CHECKS[name](names)


def test_the_list_names_each_recipe():
    assert re.findall(r"^\* \[(.+)\]\(#.+\)$", DOCUMENT, re.MULTILINE) == list(SECTIONS)


@pytest.mark.parametrize("line", CURVES)
def test_a_line_of_the_gallery(line):
    names = {"keras": keras, "lrops": lrops}
    exec(line, names)  # noqa: S102
    assert 0 < names["schedule"](20_000) <= 1e-3


def small_model(library, optimizer):
    model = library.Sequential([library.Input((1,)), library.layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


ADAM, LEGACY = tf_keras.optimizers.Adam, tf_keras.optimizers.legacy.Adam
# The optimizer, the policy, and which files keep the count of the updates.
KEPT = [
    (ADAM, "float32", {"model.keras": True, "model.h5": True, "model": False}),
    (ADAM, "mixed_float16", {"model.keras": True, "model.h5": False}),
    (LEGACY, "float32", {"model.keras": False, "model.h5": True, "model": False}),
]


@pytest.mark.parametrize("optimizer, policy, files", KEPT)
def test_what_a_file_of_tf_keras_brings_back(optimizer, policy, files, tmp_path):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        model = small_model(tf_keras, optimizer(schedule()))
        fit(model, epochs=1)
        for file, counts in files.items():
            model.save(tmp_path / file)
            again = tf_keras.models.load_model(tmp_path / file).optimizer
            again = getattr(again, "inner_optimizer", again)
            assert again.get_config()["learning_rate"]["config"] == schedule().get_config()
            assert count(again) == (10 if counts else 0), file
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


def test_weights_of_a_constant_rate_keep_their_count(tmp_path):
    trained, lost, kept = (small_model(keras, keras.optimizers.Adam(rate)) for rate in (1e-2, schedule(), 1e-2))
    fit(trained, epochs=1)
    trained.save_weights(tmp_path / "constant.weights.h5")
    for model in (lost, kept):
        model.optimizer.build(model.trainable_variables)
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        lost.load_weights(tmp_path / "constant.weights.h5")
    kept.load_weights(tmp_path / "constant.weights.h5")
    assert [count(model.optimizer) for model in (lost, kept)] == [0, 10]
    kept.optimizer.learning_rate = schedule(start_step=10)
    kept.compile(kept.optimizer, "mse")
    history = fit(kept, lrops.LearningRateLogger(), epochs=1)
    assert history.history["learning_rate"] == [EXPECTED[9]]


@BOTH
def test_callbacks_that_set_the_rate_raise_in_keras_3_and_have_no_effect_in_tf_keras(K):
    for callback in (
        K.callbacks.LearningRateScheduler(lambda epoch: 123.0),
        K.callbacks.ReduceLROnPlateau(monitor="loss", patience=0, min_delta=1e9),
    ):
        model = model_of(schedule(), K)
        if K is keras:
            with pytest.raises(TypeError, match="not settable"):
                fit(model, callback)
        else:
            fit(model, callback)
            assert model.weights[0].numpy() == pytest.approx(EXPECTED[:20].sum())


def test_what_no_longer_follows_a_variable_peak():
    peak = tf.Variable(1.0)
    follows = lrops.WarmupCosineDecay(peak, 4, 40)
    made = keras.optimizers.SGD.from_config(keras.optimizers.SGD(follows).get_config())._learning_rate
    copied = copy.deepcopy(follows)
    peak.assign(0.5)
    assert [one.on_host(4) for one in (follows, made, copied)] == [0.5, 1, 1]
    copied.initial_learning_rate.assign(0.25)
    assert copied.on_host(4) == 0.25 and follows.on_host(4) == 0.5
