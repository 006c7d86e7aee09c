"""The op's GPU kernel inside TensorFlow, on a device that the test builds, whose memory the host cannot touch."""

import json
import re

import pytest
import tensorflow as tf
import toolchain
from processes import run_python


def run(*arguments, folder):
    """Runs Python that can import fake_gpu, and returns its output."""
    if tf.test.is_built_with_cuda():
        pytest.skip("its own kernels would not run on this device: see test_placement.py")
    done = run_python(*arguments, folder=folder, **toolchain.with_fake_gpu())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SCRIPT = """
import ctypes, faulthandler, json, os, signal
import fake_gpu, lrops, tensorflow as tf
from lrops import _applied
schedule = lrops.WarmupCosineDecay(1e-3, 10, 100)
with tf.device("GPU:0"):
    step = tf.Variable(5, dtype=tf.int64)
evaluate = tf.function(lambda: schedule(step))
said = {"devices": [step.device, evaluate().device]}

launched, copied = fake_gpu.launches(), fake_gpu.copies()
rates = [evaluate() for _ in range(10)]
said["launches and copies of 10"] = [fake_gpu.launches() - launched, fake_gpu.copies() == copied]
with tf.device("GPU:0"):
    step.assign(tf.constant(7, tf.int64))
said["another step"] = bool(evaluate().numpy() == schedule(7).numpy())
copied = _applied._copied(step)
with tf.device("GPU:0"):
    step.assign(tf.constant(8, tf.int64))
said["the logger's copies"] = [int(copied()), int(_applied._copied(step)())]

fake_gpu.library.fake_fail(b"cuLaunchKernel", 719)
said["errors"] = []
for attempt in (evaluate, lambda: schedule(step)):
    try:
        attempt()
    except tf.errors.InternalError as error:
        said["errors"].append(error.message)
fake_gpu.library.fake_fail(b"", 0)
said["afterwards"] = bool(evaluate().numpy() == schedule(8).numpy())

faulthandler.disable()
with tf.device("GPU:0"):
    tensor = tf.constant([1, 2])
address = fake_gpu.library.fake_memory
address.restype = ctypes.c_void_p
if os.fork() == 0:
    ctypes.c_longlong.from_address(address()).value
    os._exit(0)
said["touching the memory"] = signal.Signals(os.WTERMSIG(os.wait()[1])).name
print(json.dumps(said))

from lrops import doctor
doctor.examine_here()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What SCRIPT found, and the doctor's findings."""
    found, *findings = run("-c", SCRIPT, folder=tmp_path_factory.mktemp("device")).splitlines()
    findings = {finding["name"]: (finding["status"], finding["says"]) for finding in map(json.loads, findings)}
    return json.loads(found) | {"doctor": findings}


def test_the_tests_for_a_gpu_pass(tmp_path):
    """Bits and shapes. Left out: what needs CUDA's profiler, or kernels that TensorFlow's CPU build lacks."""
    options = ["-c", toolchain.ROOT / "pyproject.toml", "-p", "no:cacheprovider", "-p", "fake_gpu"]
    tests = [toolchain.HERE / "test_gpu.py", "-k", "bits and not xla or any_shape"]
    passed = run("-m", "pytest", *options, *tests, folder=tmp_path)
    assert re.search(r"^=+ 15 passed, \d+ deselected", passed, re.MULTILINE), passed


def test_a_step_in_a_variable_is_evaluated_by_one_launch_and_no_copy(said):
    assert all("GPU:0" in device for device in said["devices"])
    assert said["launches and copies of 10"] == [10, True]
    assert said["another step"]
    # Else the host could have evaluated it unseen.
    assert said["touching the memory"] == "SIGSEGV"


def test_the_logger_copies_the_count_before_it_changes(said):
    """It reads the copy in a thread, since a read from a GPU waits for all that was enqueued before."""
    assert said["the logger's copies"] == [7, 8]


def test_a_launch_that_fails_is_an_error_of_the_op_and_passes(said):
    begin = "Lrops>WarmupDecay: the CUDA kernel lrops_warmup_decay could not be launched: cuLaunchKernel returned"
    assert len(said["errors"]) == 2 and all(begin in error for error in said["errors"])
    assert said["afterwards"]


def test_the_doctor_answers_on_a_gpu_that_tensorflow_knows_little_of(said):
    found = said["doctor"]
    assert found["GPU"] == ("ok", "cards {'device_name': 'FAKE'}")
    equal = ("ok", "rates 50 of 5 curves equal the reference, bit for bit")
    assert found["GPU, eager"] == found["GPU, tf.function"] == equal
    assert found["GPU, XLA"][0] == "failed"  # XLA has no compiler for it
