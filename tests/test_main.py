"""`python -m lrops`: what the doctor finds and says, and the table and the picture that need no TensorFlow.

It must not repeat what the doctor checks; it breaks an installation and reads the answer.
"""

import json
import os
import signal

import matplotlib.image
import numpy as np
import pytest
from conftest import FOLDER, Curve, fake_tensorflow, run_python

from lrops import reference

CURVE = ["--initial-learning-rate", "1e-3", "--warmup-steps", "1000", "--total-steps", "100000"]


def lrops(*arguments, folder, package=None):
    """The command line, of the installed package or of a copy."""
    path = {"PYTHONPATH": str(package.parent)} if package else {}
    return run_python("-m", "lrops", *arguments, folder=folder, **path)


def findings(result):
    report = json.loads(result.stdout)
    assert report["healthy"] == (result.returncode == 0)
    return {check["name"]: (check["status"], check["says"]) for check in report["checks"]}


def test_a_healthy_installation(tmp_path):
    result = lrops("doctor", folder=tmp_path)
    assert result.returncode == 0 and result.stdout.endswith("Nothing is wrong.\n"), result
    assert not result.stderr
    lines = [line.split()[0] for line in result.stdout.splitlines()[:-2]]
    assert lines.count("ok") >= 9 and "failed" not in lines
    assert result.stdout.count("the bits of the reference") >= 4


def test_the_same_as_json(tmp_path):
    found = findings(lrops("doctor", "--json", folder=tmp_path))
    assert [found[name][0] for name in ("lrops", "op", "Keras", "CPU, eager", "CPU, XLA")] == ["ok"] * 5


def test_no_tensorflow(package):
    (package.parent / "tensorflow.py").write_text("raise ModuleNotFoundError('no', name='tensorflow')\n")
    result = lrops("doctor", "--json", folder=package.parent, package=package)
    found = findings(result)
    assert result.returncode == 1
    assert found["TensorFlow"][0] == "failed" and "pip install 'lrops[cpu]'" in found["TensorFlow"][1]
    assert found["host function"][0] == "ok" and found["op"] == ("skipped", "needs TensorFlow")
    said = lrops("doctor", folder=package.parent, package=package).stdout
    assert said.endswith("1 of 12 checks failed: TensorFlow.\n")


def test_another_tensorflow(package):
    fake_tensorflow(package, "2.99.0")
    found = findings(lrops("doctor", "--json", folder=package.parent, package=package))
    assert found["TensorFlow"][0] == "failed" and "found TensorFlow 2.99.0" in found["TensorFlow"][1]


@pytest.mark.parametrize(("name", "check"), [("_native*", "lrops"), (f"{FOLDER}/_lrops_xla.so", "op")])
def test_a_library_that_was_cut_short(package, name, check):
    (path,) = package.glob(name)
    os.truncate(path, 4096)
    result = lrops("doctor", "--json", folder=package.parent, package=package)
    assert result.returncode == 1
    status, says = findings(result)[check]
    assert status == "failed" and "cut short" in says and "--force-reinstall" in says


def test_a_process_that_dies_is_a_finding(package):
    (package.parent / "tensorflow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    result = lrops("doctor", "--json", folder=package.parent, package=package)
    assert result.returncode == 1
    assert findings(result)["TensorFlow"] == ("failed", f"the process ended by signal {signal.SIGSEGV.value}.")


def test_a_keras_without_tensorflow(tmp_path):
    result = run_python("-m", "lrops", "doctor", "--json", folder=tmp_path, KERAS_BACKEND="numpy")
    assert result.returncode == 1
    status, says = findings(result)["Keras"]
    assert status == "failed" and "KERAS_BACKEND=tensorflow" in says


def test_the_table_needs_no_tensorflow(package):
    (package.parent / "tensorflow.py").write_text("raise ImportError\n")
    steps = [0, 1, 999, 54_321, 2**62]
    result = lrops(
        "table", *CURVE, "--alpha", "0.25", "--steps", *map(str, steps), folder=package.parent, package=package
    )
    assert result.returncode == 0, result.stderr
    rates = [np.float32(line.split()[-1]) for line in result.stdout.splitlines()]
    curve = Curve(initial_learning_rate=1e-3, warmup_steps=1000, total_steps=100_000, alpha=0.25)
    np.testing.assert_array_equal(rates, reference.warmup_cosine_decay(steps, **curve.arguments()))


def test_the_table_shows_the_landmarks(tmp_path):
    result = lrops("table", *CURVE, "--hold-steps", "10", "--start-step", "-1", folder=tmp_path)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [(" ".join(words[:-2]), words[-2]) for words in lines] == [
        ("start", "-1"),
        ("middle of warmup", "499"),
        ("peak", "999"),
        ("end of hold", "1,009"),
        ("middle of decay", "50,504"),
        ("last before the floor", "99,998"),
        ("floor", "99,999"),
    ]


def test_the_plot_needs_no_tensorflow(package):
    (package.parent / "tensorflow.py").write_text("raise ImportError\n")
    path = package.parent / "rate.png"
    result = lrops("plot", *CURVE, "--output", path, folder=package.parent, package=package)
    assert result.returncode == 0 and str(path) in result.stdout, result.stderr
    assert matplotlib.image.imread(path).std() > 0.01


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["table", *CURVE, "--total-steps", "10"], 2, "error: total_steps counts warmup and hold"),
        (["table", *CURVE, "--dtype", "int8"], 2, "error: dtype must be"),
        (["table", *CURVE, "--steps", str(2**64)], 2, "error: steps must fit in 64 bits"),
        (["table", *CURVE, "--warmup-steps", str(2**64)], 2, "must fit in 64 bits"),
        (["plot", *CURVE, "--output", "no/such/folder.png"], 1, "No such file or directory"),
    ],
)
def test_what_is_refused(tmp_path, arguments, code, said):
    result = lrops(*arguments, folder=tmp_path)
    assert result.returncode == code and said in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_the_benchmark_runs(tmp_path):
    result = lrops("bench", "--variables", "2", "--rounds", "2", "--mode", "graph", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [line.split("|")[1:4] for line in result.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows][:3] == ["constant", "constant, again", "lrops"]
    assert all(float(row[1]) > 0 for row in rows)


def test_help_without_a_command(tmp_path):
    result = lrops(folder=tmp_path)
    assert result.returncode == 0 and all(word in result.stdout for word in ("doctor", "table", "plot", "bench"))
