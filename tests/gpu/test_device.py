"""The op's GPU kernel inside TensorFlow, on a device that the test builds, whose memory the host cannot touch."""

import json
import re

import ptx
import pytest
import tensorflow as tf
import toolchain
from processes import run_python


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs Python that can import fake_gpu, and returns its output. Without `streams`, every stream is null."""
    if tf.test.is_built_with_cuda():
        pytest.skip("its own kernels would not run on this device: see test_placement.py")
    folder = tmp_path_factory.mktemp("device")
    environment = toolchain.fake_gpu(folder)

    def run(*arguments, streams=True):
        done = run_python(*arguments, folder=folder, **environment | ({} if streams else {"LD_PRELOAD": ""}))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


BEGIN = """
import fake_gpu
import lrops
import tensorflow as tf
schedule = lrops.WarmupCosineDecay(1e-3, 10, 100)
with tf.device("GPU:0"):
    step = tf.Variable(5, dtype=tf.int64)
evaluate = tf.function(lambda: schedule(step))
assert "GPU:0" in step.device and "GPU:0" in evaluate().device
"""


def test_the_tests_for_a_gpu_pass(run):
    """Bits and shapes. Left out: what needs CUDA's profiler, or kernels that TensorFlow's CPU build lacks."""
    options = ["-c", toolchain.ROOT / "pyproject.toml", "-p", "no:cacheprovider", "-p", "fake_gpu"]
    said = run(
        "-m",
        "pytest",
        *options,
        toolchain.ROOT / "tests" / "gpu" / "test_gpu.py",
        "-k",
        "bits and not xla or any_shape",
    )
    assert re.search(r"^=+ 15 passed, \d+ deselected", said, re.MULTILINE), said


def test_a_step_in_a_variable_is_evaluated_by_one_launch_and_no_copy(run):
    script = """
before = fake_gpu.launches(), fake_gpu.copies()
rates = [evaluate() for _ in range(10)]
print(fake_gpu.launches() - before[0], fake_gpu.copies() == before[1])
with tf.device("GPU:0"):
    step.assign(tf.constant(7, tf.int64))
print(evaluate().numpy() == schedule(7).numpy())
"""
    assert run("-c", BEGIN + script).split() == ["10", "True", "True"]


def test_a_device_without_streams_of_cuda_is_an_error_of_the_op(run):
    """TensorFlow's own GPUs have such streams; the device of a plugin has none."""
    script = """
try:
    evaluate()
except tf.errors.InternalError as error:
    print(error.message, fake_gpu.launches())
"""
    said = run("-c", BEGIN.replace(' and "GPU:0" in evaluate().device', "") + script, streams=False)
    assert "Lrops>WarmupDecay: the CUDA kernel lrops_warmup_decay could not be launched: the device gives no" in said
    assert said.endswith("0\n")


def test_a_launch_that_fails_is_an_error_of_the_op_and_passes(run):
    script = """
fake_gpu.library.fake_fail(b"cuLaunchKernel", 719)
for attempt in (evaluate, lambda: schedule(step)):
    try:
        attempt()
    except tf.errors.InternalError as error:
        print(error.message.replace("\\n", " "))
fake_gpu.library.fake_fail(b"", 0)
print(evaluate().numpy() == schedule(5).numpy())
"""
    *errors, passed = run("-c", BEGIN + script).splitlines()
    said = "Lrops>WarmupDecay: the CUDA kernel lrops_warmup_decay could not be launched: cuLaunchKernel returned"
    assert sum(said in line for line in errors) == 2
    assert passed == "True"


def test_the_doctor_answers_on_a_gpu_that_tensorflow_knows_little_of(run):
    answers = run("-c", "import fake_gpu\nfrom lrops import doctor\ndoctor.examine_here()").splitlines()
    found = {finding["name"]: (finding["status"], finding["says"]) for finding in map(json.loads, answers)}
    assert found["kernels"][0] == "ok"
    assert found["driver"] == ("ok", "release none; cuda 12.0; gpus 1")
    assert found["GPU"] == ("ok", f"cards FAKE (not NVIDIA's); covered by {ptx.FACTS}")
    assert (
        found["GPU, eager"]
        == found["GPU, tf.function"]
        == ("ok", "50 rates of 5 curves equal the reference, bit for bit")
    )
    assert found["GPU, XLA"][0] == "failed"  # XLA has no compiler for it


def test_the_host_cannot_touch_the_memory_of_the_device(run):
    """Else the tests above would prove less than they say."""
    script = """
import ctypes, faulthandler, os, signal
faulthandler.disable()
with tf.device("GPU:0"):
    tensor = tf.constant([1, 2])
address = fake_gpu.library.fake_memory
address.restype = ctypes.c_void_p
if os.fork() == 0:
    ctypes.c_longlong.from_address(address()).value
    os._exit(0)
print(os.WTERMSIG(os.wait()[1]) == signal.SIGSEGV)
"""
    assert run("-c", BEGIN + script).split() == ["True"]
