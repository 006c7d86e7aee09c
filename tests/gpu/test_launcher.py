"""Runs the launcher over a libcuda.so.1 that the test builds: its calls, errors, threads and rates."""

import json
import re
from pathlib import Path

import ml_dtypes  # noqa: F401  (gives NumPy bfloat16)
import numpy as np
import ptx_on_host
import pytest
import toolchain
from conftest import DTYPES, Curve, InverseSqrt, Restarts, held_by
from processes import run_python
from ptx import DRIVER

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
    (folder / "kernels" / "learning_rate_ptx.h").write_text(constants)  # as CMakeLists.txt writes it
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
print(json.dumps([error, calls(), ctypes.addressof(of), driver().fake_image().decode()]))
"""
    error, calls, stream, image = run(snippet)
    assert error == ""
    assert calls == [
        "cuLibraryLoadData",
        "cuLibraryGetKernel lrops_warmup_decay",
        f"cuLaunchKernel stream={stream:#x} context=7 grid=1,1,1 block=32,1,1 shared=0",
    ]
    assert image == toolchain.PTX.read_text()


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
    rates = CURVE.native(np.arange(count) % 101, **CURVE.arguments(dtype="float32"))
    np.testing.assert_array_equal(np.load(tmp_path / "bits.npy"), rates.view("u4"))


def test_no_element_is_no_call_at_all(run):
    snippet = """
own = context(7)
bits, error = launch(np.zeros((0, 3)), stream(own))
print(json.dumps([error, calls()]))
"""
    assert run(snippet) == ["", []]


def test_the_library_is_loaded_once_for_all_contexts_and_threads(run):
    snippet = f"""
import threading
streams = [stream(own) for own in map(context, (1, 2))]
errors, barrier = [], threading.Barrier(16)
def work(i):
    barrier.wait()
    for turn in range(20):
        errors.append(launch(5, streams[(i + turn) % 2])[1])
        errors.append(launch(5, streams[(i + turn) % 2], {Restarts().arguments()})[1])
        errors.append(launch(5, streams[(i + turn) % 2], {InverseSqrt().arguments()})[1])
threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([errors, calls()]))
"""
    errors, calls = run(snippet)
    assert errors == [""] * 960
    assert _count(calls, "cuLibraryLoadData") == 1
    assert _count(calls, "cuLibraryGetKernel") == 3
    assert _count(calls, "cuLaunchKernel") == 960
    assert [sum(f"context={number} " in call for call in calls) for number in (1, 2)] == [480, 480]


def test_a_null_stream_is_an_error(run):
    error, calls = run("print(json.dumps([launch(5, None)[1], calls()]))")
    assert error == (
        "the CUDA kernel lrops_warmup_decay could not be launched: the device gives no CUDA stream, so it is none of "
        "the NVIDIA GPUs that TensorFlow drives itself. Evaluate the schedule on a CPU, with tf.device('CPU:0')."
    )
    assert calls == []


DRIVER_CURE = f"It needs an NVIDIA driver of version {DRIVER} or newer; `nvidia-smi` names the one of this machine."
EARLIER_CURE = "Most likely an earlier kernel of the model failed.*CUDA_LAUNCH_BLOCKING=1"
OTHER_CURE = "Run `python -m lrops doctor`"
LOG = "; the log says: ptxas fatal : words of the compiler"
# What CUDA says of an error, and the cure.
ERRORS = {
    2: ("CUDA_ERROR_OUT_OF_MEMORY (out of memory)", "TF_FORCE_GPU_ALLOW_GROWTH=true"),
    209: (
        "CUDA_ERROR_NO_BINARY_FOR_GPU (no kernel image is available for execution on the device)",
        "no code for a card that old: evaluate the schedule on a CPU",
    ),
    218: (f"CUDA_ERROR_INVALID_PTX (a PTX JIT compilation failed){LOG}", OTHER_CURE),
    221: (
        "CUDA_ERROR_JIT_COMPILER_NOT_FOUND (PTX JIT compiler library not found)",
        "libnvidia-ptxjitcompiler.so.1, is missing.*NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    ),
    222: (
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION (the provided PTX was compiled with an unsupported toolchain.)" + LOG,
        DRIVER_CURE,
    ),
    223: (
        "CUDA_ERROR_JIT_COMPILATION_DISABLED (PTX JIT compilation was disabled)",
        "unset CUDA_DISABLE_PTX_JIT and CUDA_DISABLE_JIT",
    ),
    500: ("CUDA_ERROR_NOT_FOUND (named symbol not found)", OTHER_CURE),
    700: ("CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)", EARLIER_CURE),
    719: ("CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)", EARLIER_CURE),
    720: ("720", OTHER_CURE),  # one whose name the driver does not know
}
CURES = {cure for _, cure in ERRORS.values()}


@pytest.mark.parametrize("call", ["cuLibraryLoadData", "cuLibraryGetKernel", "cuLaunchKernel"])
@pytest.mark.parametrize("code", ERRORS)
def test_an_error_of_cuda_names_its_cause_and_its_cure_and_passes(run, call, code):
    """Of any call: the driver may compile when the library is loaded or at the launch."""
    snippet = f"""
of = stream(context(1))
driver().fake_fail(b{call!r}, {code})
error = launch(5, of)[1]
driver().fake_fail(b"", 0)
print(json.dumps([error, launch(5, of)[1]]))
"""
    error, afterwards = run(snippet)
    said, cure = ERRORS[code]
    if call == "cuLibraryGetKernel":
        said = said.removesuffix(LOG)  # nothing is compiled there
    assert error.startswith(f"the CUDA kernel lrops_warmup_decay could not be launched: {call} returned {said}. ")
    assert [known for known in CURES if re.search(known, error)] == [cure]
    assert afterwards == ""  # the failure left nothing behind


def test_the_words_of_the_compiler_are_told_once(run):
    """A later error of another cause does not repeat them; another card's compiler has its own."""
    snippet = """
streams = [stream(own) for own in map(context, (1, 2))]
errors = [launch(5, streams[0])[1]]
for code, of in ((222, streams[1]), (719, streams[0]), (218, streams[1]), (719, streams[1])):
    driver().fake_fail(b"cuLaunchKernel", code)
    errors.append(launch(5, of)[1])
print(json.dumps(errors))
"""
    first, *errors = run(snippet)
    assert first == ""
    assert ["words of the compiler" in error for error in errors] == [True, False, True, False]


@pytest.mark.parametrize(
    "curve, kernel", [(Restarts(), "lrops_warmup_cosine_restarts"), (InverseSqrt(), "lrops_warmup_inverse_sqrt")]
)
def test_each_kernel_is_named_in_its_errors(run, curve, kernel):
    snippet = f"""
of = stream(context(1))
driver().fake_fail(b"cuLaunchKernel", 719)
print(json.dumps(launch(5, of, {curve.arguments()})[1]))
"""
    assert run(snippet).startswith(f"the CUDA kernel {kernel} could not be launched: cuLaunchKernel")


def test_a_driver_older_than_the_ptx_is_named(run):
    error = run("own = context(1)\nprint(json.dumps(launch(5, stream(own))[1]))", driver="old")
    assert error.startswith(
        "the CUDA kernel lrops_warmup_decay could not be launched: libcuda.so.1 has no cuLibraryLoadData. "
        f"{DRIVER_CURE} On a CPU, with tf.device('CPU:0'), the op needs none."
    )


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
    assert re.search(f"libcuda.so.1: cannot open shared object file.*{DRIVER_CURE}", errors[1])


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
