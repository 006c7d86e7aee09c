"""Runs the launcher over a libcuda.so.1 that the test builds: its calls, errors and threads.

test_device.py compares the rates of every curve, inside TensorFlow.
"""

import json
import re

import numpy as np
import pytest
import toolchain
from conftest import Curve
from processes import output_of
from ptx import DRIVER

CURVE = Curve(warmup_steps=10, total_steps=100, alpha=0.1)
KERNELS = ["lrops_warmup_decay", "lrops_warmup_inverse_sqrt", "lrops_warmup_cosine_restarts"]
BEGIN = f"import json\nfrom fake_cuda import *\nKERNELS = {KERNELS}"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds the launcher, and a driver that is too old."""
    folder = tmp_path_factory.mktemp("cuda")
    (folder / "kernels").mkdir()
    ptx = toolchain.PTX.read_text()
    constants = (
        f'inline constexpr char kPtx[] = R"ptx({ptx})ptx";\ninline constexpr char kLeastDriver[] = "{DRIVER}";\n'
    )
    (folder / "kernels" / "learning_rate_ptx.h").write_text(constants)  # as CMakeLists.txt writes it
    sources = [toolchain.HERE / "launcher.cc", toolchain.ROOT / "cc" / "kernels" / "cuda_launcher.cc"]
    toolchain.shared_library(folder / "launcher.so", *sources, "-ldl")
    (folder / "old.cc").write_text('extern "C" void cuGetErrorName() {}\nextern "C" void cuGetErrorString() {}\n')
    toolchain.shared_library(folder / "old.so", folder / "old.cc", "-Wl,-soname,libcuda.so.1")
    return folder


@pytest.fixture(scope="module")
def run(built):
    """Runs a snippet of Python after `from fake_cuda import *`, and returns what it printed, as JSON."""

    def run(snippet, driver=None):
        driver = toolchain.fake_gpu() if driver is None else driver
        environment = {"LROPS_TEST_LAUNCHER": str(built / "launcher.so"), "LROPS_TEST_DRIVER": str(driver)}
        return json.loads(output_of(f"{BEGIN}\n{snippet}", folder=toolchain.HERE, **environment))

    return run


def test_an_evaluation_is_one_launch_in_the_context_of_its_stream(run):
    snippet = """
of = stream(7)
null, nothing, before = launch(5, None)[1], launch(np.zeros((0, 3)), of)[1], calls()
error = launch(5, of)[1]
print(json.dumps([null, nothing, before, error, calls(), ctypes.addressof(of), driver.fake_image().decode()]))
"""
    null, nothing, before, error, calls, stream, image = run(snippet)
    assert null == (
        "the CUDA kernel lrops_warmup_decay could not be launched: the device gives no CUDA stream, so it is none of "
        "the NVIDIA GPUs that TensorFlow drives itself. Evaluate the schedule on a CPU, with tf.device('CPU:0')."
    )
    assert (nothing, before) == ("", [])  # no element is no call at all
    assert error == ""
    assert calls == [
        "cuLibraryLoadData",
        "cuLibraryGetKernel lrops_warmup_decay",
        f"cuLaunchKernel stream={stream:#x} context=7 grid=1,1,1 block=32,1,1 shared=0",
    ]
    assert image == toolchain.PTX.read_text()


# The number of elements, of blocks, and of threads in each.
GRIDS = [(1, 1, 32), (32, 1, 32), (33, 1, 64), (256, 1, 256), (257, 2, 256)]
GRIDS += [(2**20, 4096, 256), (2**20 + 999, 4096, 256)]


def test_the_grid_covers_every_element_and_has_a_limit(run, tmp_path):
    snippet = f"""
of = stream(7)
done = [launch(np.arange(count) % 101, of) for count, _, _ in {GRIDS}]
np.savez({str(tmp_path / "bits.npz")!r}, *(bits for bits, _ in done))
print(json.dumps([[error for _, error in done], calls()]))
"""
    errors, calls = run(snippet)
    assert set(errors) == {""}
    launches = [call for call in calls if call.startswith("cuLaunchKernel")]
    for (count, grid, block), call, bits in zip(GRIDS, launches, np.load(tmp_path / "bits.npz").values(), strict=True):
        assert f"grid={grid},1,1 block={block},1,1" in call
        rates = CURVE.native(np.arange(count) % 101, **CURVE.arguments(dtype="float32"))
        np.testing.assert_array_equal(bits, rates.view("u4"))


def test_the_library_is_loaded_once_for_all_contexts_and_threads(run):
    snippet = """
import threading
streams = [stream(number) for number in (1, 2)]
errors, barrier = [], threading.Barrier(16)
def work(i):
    barrier.wait()
    for turn in range(20):
        for kernel in KERNELS:
            errors.append(launch(5, streams[(i + turn) % 2], kernel)[1])
threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([errors, calls()]))
"""
    errors, calls = run(snippet)
    assert errors == [""] * 960
    names = [call.split()[0] for call in calls]
    counts = {name: names.count(name) for name in names}
    assert counts == {"cuLibraryLoadData": 1, "cuLibraryGetKernel": 3, "cuLaunchKernel": 960}
    assert [sum(f"context={number} " in call for call in calls) for number in (1, 2)] == [480, 480]


DRIVER_FIX = f"It needs an NVIDIA driver of version {DRIVER} or newer; `nvidia-smi` names the one of this machine."
EARLIER_FIX = "Most likely an earlier kernel of the model failed.*CUDA_LAUNCH_BLOCKING=1"
OTHER_FIX = "Run `python -m lrops doctor`"
ERRORS = {
    2: "TF_FORCE_GPU_ALLOW_GROWTH=true",
    209: "no code for a card that old: evaluate the schedule on a CPU",
    218: "a fault of lrops: please report it",
    221: "libnvidia-ptxjitcompiler.so.1, is missing.*NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    222: DRIVER_FIX,
    223: "unset CUDA_DISABLE_PTX_JIT and CUDA_DISABLE_JIT",
    500: OTHER_FIX,
    700: EARLIER_FIX,
    701: OTHER_FIX,  # the fake driver does not know the names of this one and of 720
    719: EARLIER_FIX,
    720: OTHER_FIX,
}


def test_an_error_of_cuda_names_its_cause_and_its_fix_and_leaves_nothing_behind(run):
    """Of any call: the driver may compile when the library is loaded or at the launch. The fake writes its outputs."""
    snippet = f"""
of, found = stream(1), {{}}
for call in ("cuLibraryLoadData", "cuLibraryGetKernel", "cuLaunchKernel"):
    for code in {list(ERRORS)}:
        driver.fake_fail(call.encode(), code)
        found[f"{{call}} {{code}}"] = [launch(5, of, kernel)[1] for kernel in KERNELS]
driver.fake_fail(b"", 0)
print(json.dumps([found, [launch(5, of, kernel)[1] for kernel in KERNELS], calls()]))
"""
    found, afterwards, calls = run(snippet)
    assert len(found) == 3 * len(ERRORS)
    for case, errors in found.items():
        call, code = case.split()
        said = code if code in ("701", "720") else f"NAME_{code} (words of {code})"
        for kernel, error in zip(KERNELS, errors, strict=True):
            assert error.startswith(f"the CUDA kernel {kernel} could not be launched: {call} returned {said}. ")
            assert {fix for fix in ERRORS.values() if re.search(fix, error)} == {ERRORS[int(code)]}
    assert afterwards == [""] * 3
    assert calls.count("cuLibraryLoadData") == 3 * len(ERRORS) + 1


def test_a_driver_older_than_the_ptx_is_named(run, built):
    error = run("print(json.dumps(launch(5, stream(1))[1]))", driver=built / "old.so")
    assert error.startswith(
        "the CUDA kernel lrops_warmup_decay could not be launched: libcuda.so.1 has no cuLibraryLoadData. "
        f"{DRIVER_FIX} On a CPU, with tf.device('CPU:0'), the op needs none."
    )


def test_no_driver_is_named(run):
    snippet = """
try:
    ctypes.CDLL("libcuda.so.1")
except OSError:
    print(json.dumps([launch(count, stream(1))[1] for count in (np.zeros(0), 5)]))
else:
    print("null")
"""
    errors = run(snippet, driver="")
    if errors is None:
        pytest.skip("this machine has a driver")
    assert errors[0] == ""  # no element, no driver needed
    assert re.search(f"libcuda.so.1: cannot open shared object file.*{DRIVER_FIX}", errors[1])
