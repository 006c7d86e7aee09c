"""What the learning rate costs on a GPU: prints a Markdown table for RESULTS.md, in ten minutes. Run by `make gpu`."""

import argparse
import contextlib
import ctypes
import importlib.util
import itertools
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from gpu_kernels import gpu_events

import lrops
from lrops import benchmark

VARIABLES = (10, 100, 300)
ELEMENTS = 1000  # of each variable: small, so that what a step costs besides its arithmetic is seen
ROUNDS = 11
SECONDS = 0.3  # of each contender in a round


def step_rows(variables, jit_compile):
    """Item (b): the time of a step. The contenders take turns; a ratio is the median of the ratios of all rounds."""
    mode = "xla" if jit_compile else "graph"
    rows = benchmark.compare(variables=variables, mode=mode, elements=ELEMENTS, rounds=ROUNDS, seconds=SECONDS)
    limit = {(False, 100): "at most 1.03", (True, 100): "at most 1.01"}.get((jit_compile, variables), "")
    for name, row in rows.items():
        result = f"{row['us']:.0f} us a step, {row['ratio']:.3f} of constant"
        yield "b", f"{mode}, {variables} variables, {name}", result, limit if name == "lrops" else ""


def profile_rows(variables, jit_compile, count=20):
    """Item (c): kernels and copies a step."""
    mode = "xla" if jit_compile else "graph"
    for name, rate in benchmark.contenders().items():
        step = benchmark.training_step(rate, variables=variables, elements=ELEMENTS, mode=mode)
        events = gpu_events(step.run, count)
        copies = sum(times for event, times in events.items() if "D2H" in event or "DtoH" in event)
        kernels = sum(times for event, times in events.items() if not event.startswith(("Memcpy", "Memset")))
        case = f"{mode}, {variables} variables, {name}"
        result = f"{kernels / count:g} kernels, {copies / count:g} device-to-host copies a step"
        yield "c", case, result if events else "the profiler saw no GPU event", "copies of constant" * (name == "lrops")


class Cuda:
    """CUDA's driver, in the context that TensorFlow uses; every call is checked."""

    def __init__(self):
        self._library = ctypes.CDLL("libcuda.so.1")
        self("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self("cuDeviceGet", ctypes.byref(device), 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)

    def __call__(self, name, *arguments):
        code = getattr(self._library, name)(*arguments)
        if code:
            raise RuntimeError(f"{name} returned {code}")

    def new(self, name, *arguments):
        """The handle that a call makes."""
        handle = ctypes.c_void_p()
        self(name, ctypes.byref(handle), *arguments)
        return handle

    def kernel(self, ptx, name):
        """A kernel of a PTX text."""
        return self.new("cuModuleGetFunction", self.new("cuModuleLoadData", ptx), name)

    def nanoseconds(self, *kernels, launches=500):
        """The time of one launch of each kernel in turn, of one warp each.

        Args:
            *kernels: What `kernel` gave, with the arguments of the launch.
            launches: How many of each the CUDA graph holds, one after another, whose time is taken between two events.
        """
        stream = self.new("cuStreamCreate", 1)  # not synchronised with the default stream
        self("cuStreamBeginCapture_v2", stream, 1)  # of this thread only
        for _ in range(launches):
            for kernel, arguments in kernels:
                self("cuLaunchKernel", kernel, 1, 1, 1, 32, 1, 1, 0, stream, arguments, None)
        graph = ctypes.c_void_p()
        self("cuStreamEndCapture", stream, ctypes.byref(graph))
        executable = self.new("cuGraphInstantiateWithFlags", graph, ctypes.c_ulonglong(0))
        start, end = self.new("cuEventCreate", 0), self.new("cuEventCreate", 0)
        times = []
        for _ in range(ROUNDS):
            self("cuEventRecord", start, stream)
            self("cuGraphLaunch", executable, stream)
            self("cuEventRecord", end, stream)
            self("cuEventSynchronize", end)
            milliseconds = ctypes.c_float()
            self("cuEventElapsedTime", ctypes.byref(milliseconds), start, end)
            times.append(milliseconds.value * 1e6 / launches)
        return statistics.median(times)


HEADER = ".version 8.0\n.target sm_50\n.address_size 64\n"
EMPTY = f"{HEADER}.visible .entry empty() {{ ret; }}\n".encode()


def large(instructions=16_000):
    """The PTX of a kernel of so many instructions, 16 bytes each: it drives others out of the instruction cache."""
    body = "mad.lo.u32 %r1, %r1, %r1, 12345;\nxor.b32 %r1, %r1, %r2;\n" * (instructions // 2)
    return (
        f"{HEADER}.visible .entry large(.param .u64 out)\n{{\n.reg .b32 %r<3>;\n.reg .b64 %a<3>;\n"
        f"mov.u32 %r1, %tid.x;\nmov.u32 %r2, %ntid.x;\n{body}"
        "ld.param.u64 %a1, [out];\ncvta.to.global.u64 %a2, %a1;\nst.global.u32 [%a2], %r1;\nret;\n}\n"
    ).encode()


def kernel_rows():
    """Item (d): the scalar kernel against an empty one. Its time depends on no value, so the curve may be all zeros."""
    ptx = (Path(__file__).parents[1] / "cc" / "kernels" / "learning_rate.ptx").read_bytes()
    curve, number_format = (int(size) for size in re.findall(rb"param_[01]\[(\d+)\]", ptx)[:2])
    cuda = Cuda()
    memory = cuda.new("cuMemAlloc_v2", ctypes.c_size_t(256))
    cuda("cuMemsetD8_v2", memory, ctypes.c_ubyte(0), ctypes.c_size_t(256))
    values = [ctypes.create_string_buffer(curve), ctypes.create_string_buffer(number_format), ctypes.c_int(4)]
    values += [memory, ctypes.c_longlong(1), ctypes.c_void_p(memory.value + 128)]
    arguments = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    target = ctypes.c_void_p(memory.value + 192)
    between = (cuda.kernel(large(), b"large"), (ctypes.c_void_p * 1)(ctypes.addressof(target)))
    kernels = {
        "empty kernel": (cuda.kernel(EMPTY, b"empty"), None),
        "scalar kernel": (cuda.kernel(ptx, b"lrops_warmup_decay"), arguments),
    }
    alone = cuda.nanoseconds(between)
    for name, kernel in kernels.items():
        yield "d", name, f"{cuda.nanoseconds(kernel):.0f} ns", ""
        # As in a step, where other kernels have run since the last evaluation.
        yield "d", f"{name}, after a large one", f"{cuda.nanoseconds(between, kernel) - alone:.0f} ns", ""


def fit_rows():
    """Item (e): the path that `fit` takes by itself, without and with a strategy."""
    rows = np.ones((64, 4), "float32")
    for name, strategy in {"fit": None, "fit, MirroredStrategy": tf.distribute.MirroredStrategy(["GPU:0"])}.items():
        with strategy.scope() if strategy else tf.device("GPU:0"):
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            model.compile(keras.optimizers.AdamW(lrops.WarmupCosineDecay(1e-3, 10, 100), weight_decay=0.01), "mse")
            events = gpu_events(lambda model=model: model.fit(rows, rows[:, :1], batch_size=8, verbose=0), 1)
        launched = sum(count for event, count in events.items() if "lrops_warmup_decay" in event)
        path = "under XLA" if model.jit_compile else "without XLA"
        yield "e", f"{name}, 8 steps", f"{path}, {launched} launches of the CUDA kernel", ""


def bit_rows():
    """Item (a): the tests that compare the GPU's bits with the CPU's, in a process of their own."""
    case, root = "`pytest -m gpu tests/gpu`", Path(__file__).parents[1]
    if importlib.util.find_spec("pytest") is None:
        yield "a", case, "not run: pytest is not installed: run `pip install pytest`", "all passed"
        return
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-c",
        str(root / "pyproject.toml"),
        str(root / "tests" / "gpu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    yield "a", case, (done.stdout.strip().splitlines() or ["nothing was said"])[-1], "all passed"


def rows():
    """Every row of the table, (a) to (e)."""
    yield from bit_rows()  # first: it needs the GPU's memory, which this process takes when it starts to compute
    for jit_compile in (False, True):
        for variables in VARIABLES:
            yield from step_rows(variables, jit_compile)
    for jit_compile in (False, True):
        yield from profile_rows(100, jit_compile)
    yield from kernel_rows()
    yield from fit_rows()


def main():
    """Prints the table, and writes it to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a file that gets the table too")
    output = parser.parse_args().output
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        sys.exit(
            "gpu_overhead.py needs a GPU, and TensorFlow sees none: `tf.config.list_physical_devices('GPU')` is empty."
        )
    card = tf.config.experimental.get_device_details(gpus[0])
    head = (
        f"{time.strftime('%Y-%m-%d')}, {card.get('device_name')} (compute {card.get('compute_capability')}), "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, lrops {lrops.build_info}\n\n"
        "| item | case | result | must reach |\n| --- | --- | --- | --- |"
    )
    lines = (f"| {' | '.join(row)} |" for row in rows())
    with output.open("w") if output else contextlib.nullcontext() as file:
        for line in itertools.chain([head], lines):
            print(line, flush=True)
            if file:
                print(line, file=file, flush=True)


if __name__ == "__main__":
    main()
