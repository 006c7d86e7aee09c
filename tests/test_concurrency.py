"""Many threads, datasets and forked processes evaluate schedules at once."""

import threading

import numpy as np
import tensorflow as tf
from conftest import Curve, needs_locks, schedule_of
from processes import output_of

from lrops import reference

CURVE = Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40)
STEPS = np.arange(-10, 60)
RATES = reference.warmup_decay(STEPS, **CURVE.arguments())


def test_one_schedule_from_many_threads():
    schedule = schedule_of(CURVE)
    traced, compiled = (tf.function(schedule.__call__, jit_compile=jit) for jit in (False, True))
    wrong = []

    def evaluate():
        for call in (schedule, schedule.on_host, traced, compiled) * 25:
            if not np.array_equal(call(tf.constant(STEPS)), RATES):
                wrong.append(call)

    threads = [threading.Thread(target=evaluate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_threads_of_a_dataset():
    dataset = tf.data.Dataset.from_tensor_slices(STEPS).repeat(20)
    rates = dataset.map(schedule_of(CURVE), num_parallel_calls=8, deterministic=True)
    np.testing.assert_array_equal(list(rates.as_numpy_iterator()), np.tile(RATES, 20))


FORK = """
import multiprocessing
import lrops

def rate(step):
    schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
    return float(schedule.on_host(step)), float(schedule(step))

if __name__ == "__main__":
    for method, processes in ("fork", 2), ("spawn", 1):
        with multiprocessing.get_context(method).Pool(processes) as pool:
            print(pool.map(rate, [4, 8]))
"""


@needs_locks
def test_processes_forked_and_spawned(tmp_path):
    program = tmp_path / "workers.py"  # a spawned process imports it
    program.write_text(FORK)
    rate, peak = (float(np.float32(value)) for value in (0.005, 0.01))
    assert output_of(program, folder=tmp_path) == f"{[(rate, rate), (peak, peak)]}\n" * 2
