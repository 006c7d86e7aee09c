"""Every replica applies the rate of the step. Runs the scripts in examples/ as processes on the loopback."""

from pathlib import Path

import numpy as np
import pytest
from cluster import applied, cluster, said, wait_for
from conftest import MIRRORED, needs_locks
from processes import HANGS, output_of

from lrops import reference

EXAMPLES = Path(__file__).parents[2] / "examples"
RATES = reference.warmup_decay(np.arange(60), 0.01, 8, 40).astype(np.float64).tolist()


def test_mirrored(tmp_path):
    *lines, last = output_of(EXAMPLES / "mirrored.py", folder=tmp_path).splitlines()
    assert last == "steps 50" and len(lines) == 50  # of the optimizer, not of its replicas
    for count, line in enumerate(lines):
        assert line == f"{count} {[RATES[count]] * 2} {[RATES[count + 1]] * 2}"


# Keras 3 in a loop, tf_keras in fit.
@pytest.mark.parametrize("script", ["multi_worker.py", pytest.param("multi_worker_fit.py", marks=needs_locks)])
def test_two_workers_killed_and_started_again(tmp_path, script):
    total = 120
    expected = reference.warmup_decay(np.arange(total), 0.01, 20, total).astype(np.float64)
    command = [EXAMPLES / script, tmp_path, "--total-steps", total]
    with cluster(tmp_path, command, worker=2) as processes:
        path = tmp_path / "rates-1.txt"

        def has_begun():
            assert processes["worker"][0].is_alive(), said(tmp_path, "worker")
            return path.exists() and len(path.read_bytes().splitlines()) > 50

        wait_for(has_begun, lambda: said(tmp_path, "worker"))
    # Here both have been killed.
    with cluster(tmp_path, command, worker=2) as processes:
        for index, process in enumerate(processes["worker"]):
            process.join(HANGS)
            assert process.exitcode == 0, said(tmp_path, "worker", index)
            # The weight is the same on both, because these sums are exact.
            assert said(tmp_path, "worker", index).splitlines()[-1] == f"finished {-expected.sum().item()!r}"
    for index in range(2):
        taken = applied(tmp_path / f"rates-{index}.txt")
        assert {step for step, _ in taken} == set(range(total))
        assert total <= len(taken) < total + 50  # steps after the last checkpoint are taken again, and not all of them
        for step, rate in taken:
            assert rate == expected[step], (index, step)


def test_parameter_servers(tmp_path):
    with cluster(tmp_path, [EXAMPLES / "parameter_server.py"], chief=1, worker=2, ps=1) as processes:
        (chief,) = processes["chief"]
        chief.join(HANGS)
        assert chief.exitcode == 0, said(tmp_path, "chief")
    lines = [line.split() for line in said(tmp_path, "chief").splitlines()]
    lines = [line for line in lines if len(line) == 2 and line[0].isdigit()] + lines[-1:]
    assert lines == [[str(count), repr(RATES[count])] for count in range(50)] + [["steps", "50"]]


def test_xla_inside_a_replica(tmp_path):
    script = """
import numpy as np
with strategy.scope():
    schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
    optimizer = keras.optimizers.SGD(schedule)
    weight = keras.Variable(0.0, dtype="float64")
    optimizer.build([weight])

@tf.function(jit_compile=True)
def compiled(count):
    return tf.constant(0.5, tf.float64), schedule(count)

@tf.function
def step():
    def replica():
        before = weight.value + 0.0
        gradient, rate = compiled(optimizer.iterations.value)
        optimizer.apply([gradient])
        return rate, before - weight.value
    return tf.nest.map_structure(strategy.experimental_local_results, strategy.run(replica))

for _ in range(50):
    rates, taken = step()
    print(repr([float(rate) for rate in (*rates, *taken)]))
"""
    assert output_of(MIRRORED + script, folder=tmp_path).splitlines() == [str([rate] * 4) for rate in RATES[:50]]


def test_several_steps_an_execution_in_tf_keras(tmp_path):
    script = """
import tf_keras
with strategy.scope():
    weight = tf_keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", dtype="float64", input_shape=(1,))
    model = tf_keras.Sequential([weight])
    schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
    model.compile(tf_keras.optimizers.SGD(schedule), lambda _, out: out, jit_compile=False, steps_per_execution=5)
seen = tf_keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_: print(-weight.kernel.numpy().item()))
ones = tf.ones([100, 1], tf.float64)
model.fit(ones, ones, batch_size=2, verbose=0, callbacks=[seen])
"""
    totals = [str(total) for total in np.cumsum(RATES[:50])[4::5].tolist()]
    assert output_of(MIRRORED + script, folder=tmp_path).split() == totals


def test_a_checkpoint_goes_on_with_fewer_replicas_and_another_peak(tmp_path):
    script = """
def made(strategy, peak):
    with strategy.scope():
        optimizer = keras.optimizers.SGD(lrops.WarmupCosineDecay(peak, 8, 40))
        weight = keras.Variable(0.0, dtype="float64")
        optimizer.build([weight])

    @tf.function
    def step():
        def replica():
            before = weight.value + 0.0
            optimizer.apply([tf.constant(1 / strategy.num_replicas_in_sync, tf.float64)])
            return before - weight.value
        return strategy.experimental_local_results(strategy.run(replica))

    return step, tf.train.Checkpoint(optimizer=optimizer, weight=weight.value)

step, checkpoint = made(strategy, 0.01)
for _ in range(20):
    print([float(rate) for rate in step()])
path = checkpoint.save("run")
step, checkpoint = made(tf.distribute.MirroredStrategy(["CPU:1"]), 0.02)
checkpoint.restore(path).assert_consumed()
for _ in range(30):
    print([float(rate) for rate in step()])
"""
    other = reference.warmup_decay(np.arange(20, 50), 0.02, 8, 40).astype(np.float64).tolist()
    expected = [str([rate] * 2) for rate in RATES[:20]] + [str([rate]) for rate in other]
    assert output_of(MIRRORED + script, folder=tmp_path).splitlines() == expected
