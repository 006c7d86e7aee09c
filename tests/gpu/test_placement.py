"""On which devices TensorFlow's CUDA build runs an optimizer step, and with how many kernels and copies.

The device of fake_gpu.cc takes the place of TensorFlow's own GPU. TensorFlow's kernels crash there, but before it runs
a graph it writes the graph of each device to a file. tools/matrix.py runs this with `tensorflow`.
"""

import collections
import functools

import pytest
import tensorflow as tf
import toolchain
from google.protobuf import text_format
from processes import run_python
from tensorflow.core.framework import graph_pb2

# Nodes that launch nothing, because their values exist already. (A function's constants are made once.)
NO_KERNEL = {"_Arg", "_Retval", "Const", "Identity", "IdentityN", "NoOp", "ReadVariableOp", "VarHandleOp"}
SENDS = {"_Send", "_HostSend", "Send"}
RECEIVES = {"_Recv", "_HostRecv", "Recv"}
VARIABLES = 4

STEP = """
import sys
import fake_gpu
import keras, lrops, numpy as np, tensorflow as tf

N, DEVICES = int(sys.argv[2]), int(sys.argv[3])
strategy = tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(DEVICES)]) if DEVICES > 1 else None


def start_on_cpu(make, initial_value, **arguments):
    with tf.device("CPU:0"):
        value = initial_value() if callable(initial_value) else initial_value
    if strategy:
        return make(initial_value=value, **arguments)
    with tf.device("GPU:0"):
        return make(initial_value=value, **arguments)


rates = {
    "constant": lambda: 1e-3,
    "decay": lambda: lrops.WarmupCosineDecay(1e-3, 10, 100),
    "inverse_sqrt": lambda: lrops.WarmupInverseSqrt(1e-3, 10),
    "restarts": lambda: lrops.WarmupCosineRestarts(1e-3, 10, 100),
    "peak": lambda: lrops.WarmupCosineDecay(tf.Variable(1e-3), 10, 100),
    "Keras": lambda: keras.optimizers.schedules.CosineDecay(0.0, 90, warmup_target=1e-3, warmup_steps=10),
}
scope = strategy.scope() if strategy else tf.device("CPU:0")
with scope, tf.device("CPU:0"), tf.variable_creator_scope(start_on_cpu):
    optimizer = keras.optimizers.AdamW(rates[sys.argv[1]](), weight_decay=0.1)
    weights = [keras.Variable(np.ones(2, "float32")) for _ in range(N)]
    optimizer.build(weights)
    assert "GPU:0" in optimizer.iterations.value.device, optimizer.iterations.value.device


@tf.function(jit_compile=False)
def step(*gradients):
    if strategy:
        strategy.run(lambda: optimizer.apply([tf.identity(one) for one in gradients]))  # on the replica's device
    else:
        optimizer.apply(list(gradients))


with tf.device("GPU:0"):
    gradients = [tf.constant(np.ones(2, "float32")) for _ in range(N)]
step(*gradients)
"""


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    """(rate, devices) -> the nodes of a step, by device: how many of each operation."""
    if not tf.test.is_built_with_cuda():
        pytest.skip("TensorFlow for the CPU has no kernels for a GPU that it could place")
    folder = tmp_path_factory.mktemp("placement")
    environment = toolchain.with_fake_gpu()

    @functools.cache
    def placed(rate, devices=1):
        dump = folder / f"{rate}_{devices}"
        dump.mkdir()
        environment.update(TF_DUMP_GRAPH_PREFIX=str(dump), TF_DUMP_GRAPH_GROUPS="main", TF_DUMP_GRAPH_NAME_FILTER="*")
        environment["LROPS_TEST_GPUS"] = str(devices)
        done = run_python("-c", STEP, rate, str(VARIABLES), str(devices), folder=folder, **environment)
        found = {}
        for path in dump.glob("__inference_step_*partition__*.main.after_partition_passes.pbtxt"):
            graph = text_format.Parse(path.read_text(), graph_pb2.GraphDef())
            device = graph.node[0].device.rpartition("device:")[2]
            found[device] = collections.Counter(node.op for node in graph.node)
        assert found, done.stderr
        return found

    return placed


def total(counts, operations):
    return sum(count for operation, count in counts.items() if operation in operations)


def kernels(counts):
    return total(counts, counts.keys() - NO_KERNEL - SENDS - RECEIVES)


def copies(counts):
    return total(counts, SENDS), total(counts, RECEIVES)


def test_one_kernel_and_no_copy_more_than_at_a_constant_rate(placed):
    operations = {
        "decay": "Lrops>WarmupDecay",
        "inverse_sqrt": "Lrops>WarmupInverseSqrt",
        "restarts": "Lrops>WarmupCosineRestarts",
    }
    steps = {rate: placed(rate) for rate in ("constant", *operations)}
    for step in steps.values():
        assert step.keys() == {"GPU:0"}
        assert copies(step["GPU:0"]) == (0, 0)
    least = kernels(steps["constant"]["GPU:0"])
    assert least > 10 * VARIABLES
    for rate, operation in operations.items():
        assert steps[rate]["GPU:0"][operation] == 1
        assert kernels(steps[rate]["GPU:0"]) == least + 1


def test_a_peak_in_a_variable_is_one_evaluation_and_one_product(placed):
    (step,) = placed("peak").values()
    assert step["Lrops>WarmupDecay"] == 1
    (constant,) = placed("constant").values()
    assert step - constant - collections.Counter(dict.fromkeys(NO_KERNEL, 99)) == {
        "Lrops>WarmupDecay": 1,
        "Cast": 2,
        "Mul": 1,
    }
    assert copies(step) == (0, 0)


def test_the_schedule_of_keras_is_copied_to_the_host_for_each_variable(placed):
    """What the numbers above are worth."""
    step = placed("Keras")
    assert total(step["GPU:0"], SENDS) > VARIABLES


def test_each_replica_evaluates_on_its_own_device(placed):
    constant, step = placed("constant", 2), placed("decay", 2)
    assert step.keys() == constant.keys() >= {"GPU:0", "GPU:1"}
    for device in ("GPU:0", "GPU:1"):
        assert step[device]["Lrops>WarmupDecay"] == 1
        assert kernels(step[device]) == kernels(constant[device]) + 1
        assert copies(step[device]) == copies(constant[device])
