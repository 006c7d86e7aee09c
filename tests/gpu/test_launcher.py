"""The launcher over a libcuda.so.1 that the test builds: its calls, errors and threads, and the rates of its PTX."""

import json
import re
from pathlib import Path

import ml_dtypes  # noqa: F401  (gives NumPy bfloat16)
import numpy as np
import ptx_on_host
import pytest
import toolchain
from conftest import DTYPES, Curve, Restarts, held_by, run_python
from ptx import DRIVER

from lrops import _native

HERE = Path(__file__).parent
CURVE = Curve(warmup_steps=10, total_steps=100, alpha=0.1)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds the launcher, a driver that is new enough, and one that is too old."""
    folder = tmp_path_factory.mktemp("cuda")
    (folder / "kernels").mkdir()
    ptx = toolchain.PTX.read_text()
    constants = (
        f'inline constexpr char kPtx[] = R"ptx({ptx})ptx";\ninline constexpr char kLeastDriver[] = "{DRIVER}";\n'
    )
    (folder / "kernels" / "warmup_cosine_ptx.h").write_text(constants)  # as CMakeLists.txt writes it
    launcher = [HERE / "launcher.cc", toolchain.ROOT / "cc" / "kernels" / "cuda_launcher.cc"]
    toolchain.shared_library(folder / "launcher.so", *launcher, "-ldl")
    for name, options in {"new": [], "old": ["-DOLD_DRIVER"]}.items():
        (folder / name).mkdir()
        ptx_on_host.write_header(ptx, folder / name)
        toolchain.shared_library(folder / name / "libcuda.so.1", *options, HERE / "fake_libcuda.cc")
    return folder


@pytest.fixture(scope="module")
def run(built):
    """Runs a snippet of Python after `from fake_cuda import *`, and returns what it printed, as JSON."""

    def run(snippet, driver="new"):
        environment = {
            "LD_LIBRARY_PATH": toolchain.libraries_first_in(built / driver),
            "LROPS_TEST_LAUNCHER": str(built / "launcher.so"),
            "LROPS_TEST_CURVE": json.dumps(CURVE.arguments()),
            "PYTHONPATH": str(HERE),
        }
        done = run_python("-c", "import json\nfrom fake_cuda import *\n" + snippet, folder=built, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def _count(calls, name):
    return sum(call.split()[0] == name for call in calls)


def test_one_evaluation_is_one_launch_in_the_context_of_its_stream(run):
    snippet = """
own = context(7)
of = stream(own)
bits, error = launch(5, of)
print(json.dumps([error, calls(), ctypes.addressof(of), driver().fake_image().decode(), driver().fake_depth()]))
"""
    error, calls, stream, image, depth = run(snippet)
    assert error == ""
    assert calls == [
        "cuStreamGetCtx",
        "cuCtxPushCurrent",
        "cuCtxGetId",
        "cuModuleLoadDataEx",
        "cuModuleGetFunction lrops_warmup_cosine",
        "cuModuleGetFunction lrops_warmup_cosine_restarts",
        f"cuLaunchKernel stream={stream:#x} context=7 grid=1,1,1 block=32,1,1 shared=0",
        "cuCtxPopCurrent",
    ]
    assert image == toolchain.PTX.read_text()
    assert depth == 0


@pytest.mark.parametrize(
    "count, grid, block",
    [(1, 1, 32), (32, 1, 32), (33, 1, 64), (256, 1, 256), (257, 2, 256), (2**20, 4096, 256), (2**20 + 999, 4096, 256)],
)
def test_the_grid_covers_every_element_and_has_a_limit(run, tmp_path, count, grid, block):
    snippet = f"""
own = context(7)
bits, error = launch(np.arange({count}) % 101, stream(own))
np.save({str(tmp_path / "bits.npy")!r}, bits)
print(json.dumps([error, calls()]))
"""
    error, calls = run(snippet)
    assert error == ""
    launches = [call for call in calls if call.startswith("cuLaunchKernel")]
    assert len(launches) == 1
    assert f"grid={grid},1,1 block={block},1,1" in launches[0]
    rates = _native.warmup_cosine_decay(np.arange(count) % 101, **CURVE.arguments(dtype="float32"))
    np.testing.assert_array_equal(np.load(tmp_path / "bits.npy"), rates.view("u4"))


def test_no_element_is_no_call_at_all(run):
    snippet = """
own = context(7)
bits, error = launch(np.zeros((0, 3)), stream(own))
print(json.dumps([error, calls()]))
"""
    assert run(snippet) == ["", []]


def test_the_module_is_loaded_once_in_each_context_from_many_threads(run):
    snippet = """
import threading
contexts = [context(1), context(2)]
streams = [stream(own) for own in contexts]
errors, depths, barrier = [], [], threading.Barrier(16)
def work(i):
    barrier.wait()
    for turn in range(20):
        errors.append(launch(5, streams[(i + turn) % 2])[1])
    depths.append(driver().fake_depth())
threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([errors, depths, calls()]))
"""
    errors, depths, calls = run(snippet)
    assert errors == [""] * 320
    assert depths == [0] * 16
    assert _count(calls, "cuModuleLoadDataEx") == 2
    assert _count(calls, "cuLaunchKernel") == 320


def test_a_new_context_at_an_old_address_gets_a_module_of_its_own(run):
    snippet = """
own = context(1)
of = stream(own)
errors = [launch(5, of)[1]]
own.value = 2  # destroyed, and another made in its place
errors.append(launch(5, of)[1])
print(json.dumps([errors, calls()]))
"""
    errors, calls = run(snippet)
    assert errors == ["", ""]
    assert _count(calls, "cuModuleLoadDataEx") == 2


def test_the_context_that_is_current_stays_current(run):
    snippet = """
own, other = context(1), context(2)
driver().cuCtxPushCurrent_v2(ctypes.byref(other))
error = launch(5, stream(own))[1]
number = ctypes.c_ulonglong()
driver().cuCtxGetId(None, ctypes.byref(number))
print(json.dumps([error, driver().fake_depth(), number.value]))
"""
    assert run(snippet) == ["", 1, 2]


@pytest.mark.parametrize(
    "call, code, said",
    [
        ("cuStreamGetCtx", 100, "CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)"),
        ("cuCtxPushCurrent", 709, "CUDA_ERROR_CONTEXT_IS_DESTROYED (context is destroyed)"),
        ("cuCtxGetId", 201, "CUDA_ERROR_INVALID_CONTEXT (invalid device context)"),
        (
            "cuModuleLoadDataEx",
            222,
            "CUDA_ERROR_UNSUPPORTED_PTX_VERSION (the provided PTX was compiled with an unsupported toolchain.); "
            "the log says: ptxas fatal : words of the compiler",
        ),
        (
            "cuModuleLoadDataEx",
            218,
            "CUDA_ERROR_INVALID_PTX (a PTX JIT compilation failed); the log says: ptxas fatal : words of the compiler",
        ),
        ("cuModuleGetFunction", 500, "CUDA_ERROR_NOT_FOUND (named symbol not found)"),
        ("cuLaunchKernel", 719, "CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)"),
        ("cuCtxPopCurrent", 201, "CUDA_ERROR_INVALID_CONTEXT (invalid device context)"),
        ("cuLaunchKernel", 99999, "99999"),  # newer than the driver's own names
    ],
)
def test_an_error_of_cuda_becomes_its_sentence_and_passes(run, call, code, said):
    snippet = f"""
own = context(1)
driver().fake_fail(b{call!r}, {code})
error = launch(5, stream(own))[1]
depth = driver().fake_depth()
driver().fake_fail(b"", 0)
print(json.dumps([error, depth, launch(5, stream(own))[1]]))
"""
    error, depth, afterwards = run(snippet)
    assert error == (
        f"the CUDA kernel lrops_warmup_cosine could not be launched: {call} returned {said}. It needs an NVIDIA driver "
        f"of version {DRIVER} or newer; `nvidia-smi` names the one of this machine. On a CPU, with "
        "tf.device('CPU:0'), the op needs none."
    )
    assert depth == 0
    assert afterwards == ""  # nothing of the failure was kept


def test_one_module_serves_both_kernels(run):
    snippet = f"""
own = context(1)
of = stream(own)
errors = [launch(5, of)[1], launch(5, of, {Restarts().arguments()})[1]]
driver().fake_fail(b"cuLaunchKernel", 719)
errors.append(launch(5, of, {Restarts().arguments()})[1])
print(json.dumps([errors, calls()]))
"""
    errors, calls = run(snippet)
    assert errors[:2] == ["", ""]
    assert errors[2].startswith("the CUDA kernel lrops_warmup_cosine_restarts could not be launched")
    assert _count(calls, "cuModuleLoadDataEx") == 1
    assert _count(calls, "cuLaunchKernel") == 3


def test_a_driver_older_than_the_ptx_is_named(run):
    error = run("own = context(1)\nprint(json.dumps(launch(5, stream(own))[1]))", driver="old")
    assert "libcuda.so.1 has no cuCtxGetId" in error
    assert f"needs an NVIDIA driver of version {DRIVER} or newer" in error


def test_no_driver_is_named(run):
    snippet = """
try:
    ctypes.CDLL("libcuda.so.1")
except OSError:
    own = context(1)
    print(json.dumps([launch(np.zeros(0), stream(own))[1], launch(5, stream(own))[1]]))
else:
    print("null")
"""
    errors = run(snippet, driver="none")
    if errors is None:
        pytest.skip("this machine has a driver")
    assert errors[0] == ""  # no element, no driver needed
    assert re.search("libcuda.so.1: cannot open shared object file.*driver of version", errors[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_stores_the_bits_of_the_reference(run, tmp_path, dtype):
    curves = held_by(dtype)
    assert len(curves) > 50
    np.savez(tmp_path / "steps.npz", **{name: curve.steps() for name, curve in curves.items()})
    (tmp_path / "curves.json").write_text(json.dumps({name: curve.arguments() for name, curve in curves.items()}))
    snippet = f"""
os.chdir({str(tmp_path)!r})
own = context(1)
of = stream(own)
steps = np.load("steps.npz")
done = {{name: launch(steps[name], of, curve, {dtype!r}) for name, curve in json.load(open("curves.json")).items()}}
np.savez("bits.npz", **{{name: bits for name, (bits, _) in done.items()}})
print(json.dumps([error for _, error in done.values()]))
"""
    assert set(run(snippet)) == {""}
    stored = np.load(tmp_path / "bits.npz")
    for name, curve in curves.items():
        arguments = curve.arguments(dtype=dtype)
        compiled = curve.native(curve.steps(), **arguments)
        np.testing.assert_array_equal(stored[name], compiled.view(stored[name].dtype), err_msg=name)
        if dtype != "float64":  # there the reference is not exact enough to be bit for bit
            expected = curve.reference(curve.steps(), **arguments)
            np.testing.assert_array_equal(stored[name], expected.view(stored[name].dtype), err_msg=name)
