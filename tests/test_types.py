"""Runs mypy and pyright, like a user, over a file that uses the public names rightly and wrongly."""

import re
import sys

import pytest
from processes import run_process

import lrops

# Each line that is wrong ends with the part of the complaint that both checkers share.
USER = """
import keras
import tensorflow as tf
import tf_keras
from keras.optimizers.schedules import LearningRateSchedule

import lrops


def train(schedule: LearningRateSchedule, callbacks: list[keras.callbacks.Callback]) -> None: ...


schedule = lrops.WarmupCosineDecay(1e-3, warmup_steps=10, total_steps=100)
train(schedule, [lrops.LearningRateLogger()])
train(lrops.WarmupCosineRestarts(1e-3, 10, 100, cycles=3, dtype="float64"), [])
train(lrops.WarmupDecay(1e-3, 10, 100, 0.0, decay="linear"), [])
train(lrops.WarmupInverseSqrt(1e-3, 10, timescale=None), [])
decay = keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.9)
train(lrops.LinearWarmup(lrops.LinearWarmup(decay, 10), 10, hold_steps=3, name=None), [])
lrops.LinearWarmup(tf_keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.9), warmup_steps=10)
steps: int = lrops.total_steps(100, epochs=3) + schedule.warmup_steps
rate: float = float(schedule.on_host(3))
lrops.plotting.plot(schedule, path="rate.png")
lrops.build_info["version"].split(".")
at_a_step: tf.Tensor = schedule(3)
reveal_type(schedule.warmup_steps)
lrops.WarmupCosineDecay(1e-3, 10, 100, dtype="float8")  # wrong: dtype
lrops.WarmupDecay(1e-3, 10, 100, decay="root")  # wrong: root
lrops.LinearWarmup(decay, 10, hold_steps="1")  # wrong: hold_steps
lrops.LearningRateLogger(every="1")  # wrong: every
lrops.total_steps(100, epochs="3")  # wrong: epochs
schedule.no_such_name()  # wrong: no_such_name
"""
# basedpyright is pyright as a wheel that brings its own Node.js; `standard` are pyright's own rules.
CHECKERS = {
    "mypy": ["-m", "mypy", "--ignore-missing-imports", "--cache-dir", "cache"],
    "pyright": ["-m", "basedpyright", "--level", "error", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_file(checker, tmp_path):
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    said = run_process(sys.executable, *CHECKERS[checker], "user.py", folder=tmp_path).stdout
    complaints = dict(re.findall(r"user\.py:(\d+):.*?error: (.*)", said))
    lines = USER.splitlines()
    wrong = {str(number): line.split("# wrong: ")[1] for number, line in enumerate(lines, 1) if "# wrong: " in line}
    if checker == "mypy":  # a base of Keras has no types for it, so it allows any name
        del wrong[str(len(lines))]
    assert list(complaints) == list(wrong), said
    for number, name in wrong.items():
        assert name in complaints[number], said
    if checker == "mypy":
        assert 'Revealed type is "int"' in said


def test_dir_shows_public_names_only():
    assert dir(lrops) == sorted([*lrops.__all__, "__version__"])
    assert all(hasattr(lrops, name) for name in dir(lrops))
