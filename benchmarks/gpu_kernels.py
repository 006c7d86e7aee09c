"""Counts kernels: those that ran on a GPU, and those that XLA makes of a training step for an H100, without a GPU.

As a program it prints the second for RESULTS.md. That needs the dependency group `xla-gpu` and `tensorflow`, not
`tensorflow-cpu`: only the CUDA build lowers for a GPU. TensorFlow would compile only with a GPU; the same compiler in
JAX's CUDA plugin accepts a description of one instead.
"""

import dataclasses
import functools
import importlib.util
import os
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import tensorflow as tf

import lrops
from lrops import benchmark

CASES = ((10, 1000), (100, 1000), (100, 100_000), (300, 1000), (10, 10_000_000))  # variables, elements of each
RATES = ("constant", "lrops", "Keras CosineDecay, warmup", "hand-written, tf.where")
# What XLA would ask the card for, with the values of an H100 SXM.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  device_memory_size: 84929347584
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def gpu_events(step, count):
    """How often each kernel and copy ran on the GPU in `count` calls of `step`, by TensorFlow's profiler."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    step()
    tf.test.experimental.sync_devices()  # else the end of this call would be counted too
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(count):
                step()
            tf.test.experimental.sync_devices()
        space = xplane_pb2.XSpace.FromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    events = Counter()
    for plane in space.planes:
        if plane.name.startswith("/device:GPU:"):
            streams = [line for line in plane.lines if line.name.startswith("Stream")]
            events.update(plane.event_metadata[event.metadata_id].name for line in streams for event in line.events)
    return events


def missing():
    """What this environment lacks, or an empty string."""
    if not tf.test.is_built_with_cuda():
        return "this TensorFlow is built without CUDA, and does not lower for a GPU"
    if importlib.util.find_spec("jax_plugins") is None or importlib.util.find_spec("jax_plugins.xla_cuda12") is None:
        return "jax-cuda12-plugin is not installed: run `pip install --group xla-gpu`"
    return ""


@dataclasses.dataclass
class Kernel:
    """A kernel that XLA launches."""

    name: str
    blocks: int
    threads: int  # of a block


@dataclasses.dataclass
class Compiled:
    """A function as XLA would run it."""

    kernels: list[Kernel]  # in launch order
    others: list[str]  # everything else: copies, and decisions of the host
    ptx: str  # empty if this JAX writes none


@functools.cache
def _card():
    """The described card, as the sharding of an argument."""
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # it would ask the card
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    from jax.experimental import topologies

    topology = topologies.get_topology_desc("h100", platform="cuda", target_config=H100, topology="1x1x1")
    mesh = jax.sharding.Mesh(topology.devices, ("one",))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def compile_for_gpu(function, *specs):
    """Compiles a `tf.function` for the card.

    Args:
        function: Takes and returns tensors, and touches no variable.
        *specs: A `tf.TensorSpec` for each argument.
    """
    card = _card()  # before JAX is imported: it sets what JAX reads then
    import jax
    from jax.experimental import jax2tf

    with tempfile.TemporaryDirectory() as folder, jax.enable_x64(True):
        shapes = [jax.ShapeDtypeStruct(spec.shape, spec.dtype.as_numpy_dtype, sharding=card) for spec in specs]
        lowered = jax.jit(jax2tf.call_tf(function)).lower(*shapes)
        lowered.compile(compiler_options={"xla_dump_to": folder})
        (thunks,) = Path(folder).glob("*.thunk_sequence.txt")
        lines = thunks.read_text().splitlines()
        launch = (
            r".*\bk(?:Custom)?Kernel\b.* kernel = ([^,]+),.* blocks: \{(\d+), 1, 1\}, threads/block: \{(\d+), 1, 1\}"
        )
        found = [re.match(launch, line) for line in lines]
        kernels = [Kernel(match[1], int(match[2]), int(match[3])) for match in found if match]
        others = [line for line, match in zip(lines, found, strict=True) if not match]
        return Compiled(kernels, others, "".join(path.read_text() for path in Path(folder).glob("*.ptx")))


def _current(rate, step):
    return rate(step) if callable(rate) else tf.constant(rate)


def sgd(rate, variables, elements):
    """Like `adamw`, for plain SGD."""

    @tf.function(jit_compile=True)
    def step(iterations, *tensors):
        pairs = zip(tensors[:variables], tensors[variables:], strict=True)
        return iterations + 1, [weight - gradient * _current(rate, iterations) for weight, gradient in pairs]

    return step, [tf.TensorSpec((), tf.int64), *[tf.TensorSpec((elements,), tf.float32)] * (2 * variables)]


def adamw(rate, variables, elements):
    """A step of AdamW as Keras makes it, on tensors: variables cannot be lowered for a device that is not there.

    Args:
        rate: A float, or a schedule, which is evaluated once for each variable, and once more.
        variables, elements: As in `benchmark.training_step`.

    Returns:
        The step, a `tf.function`, and its arguments' specifications.
    """

    @tf.function(jit_compile=True)
    def step(iterations, *tensors):
        weights, gradients, means, squares = (tensors[i * variables : (i + 1) * variables] for i in range(4))
        decayed = [weight - weight * 0.01 * _current(rate, iterations) for weight in weights]
        count = tf.cast(iterations + 1, tf.float32)
        alpha = _current(rate, iterations) * tf.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        results = []
        for weight, gradient, mean, square in zip(decayed, gradients, means, squares, strict=True):
            mean += (gradient - mean) * 0.1
            square += (gradient * gradient - square) * 0.001
            results.append((weight - mean * alpha / (tf.sqrt(square) + 1e-7), mean, square))
        return iterations + 1, results

    vector = tf.TensorSpec((elements,), tf.float32)
    return step, [tf.TensorSpec((), tf.int64), *[vector] * (4 * variables)]


def rows():
    """For each case, its name and the number of kernels of a step with each rate."""
    for variables, elements in CASES:
        cells = []
        for rate in benchmark.contenders(RATES).values():
            function, specs = adamw(rate, variables, elements)
            compiled = compile_for_gpu(function, *specs)
            cells.append(f"{len(compiled.kernels)}" + f", {len(compiled.others)} others" * bool(compiled.others))
        yield [f"{variables} variables of {elements:,}", *cells]


def main():
    """Prints the table."""
    if missing():
        sys.exit(f"gpu_kernels.py cannot compile for a GPU: {missing()}.")
    import jax

    print(f"{time.strftime('%Y-%m-%d')}, for an H100, TensorFlow {tf.__version__}, JAX {jax.__version__},", end=" ")
    print(f"lrops {lrops.build_info['commit']}\n")
    print("| kernels of an AdamW step | " + " | ".join(RATES) + " |\n|---" + "|--:" * len(RATES) + "|")
    for row in rows():
        print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
