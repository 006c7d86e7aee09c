"""Many threads, forks, second copies, and how the libraries are linked: what reaches the library and cannot crash it.

It must not know the formula. Broken installations are in test_loader.py.
"""

import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import FOLDER, Curve, run_python, schedule_of

import lrops
from lrops import _native, reference

CURVE = Curve(initial_learning_rate=0.01, warmup_steps=8, total_steps=40)
STEPS = np.arange(-10, 60)
RATES = reference.warmup_cosine_decay(STEPS, **CURVE.arguments())
PACKAGE = Path(lrops.__file__).parent
LIBRARIES = [Path(_native.__file__), PACKAGE / FOLDER / "_lrops_ops.so", PACKAGE / FOLDER / "_lrops_xla.so"]


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
import multiprocessing, sys
import lrops

def rate(step):
    schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
    return float(schedule.on_host(step)), float(schedule(step))

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(pool.map_async(rate, [4, 8]).get(timeout=120))
"""


def test_processes_forked_and_spawned(tmp_path):
    (tmp_path / "workers.py").write_text(FORK)
    result = run_python("workers.py", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    rate, peak = (float(np.float32(value)) for value in (0.005, 0.01))
    assert result.stdout.splitlines() == [str([(rate, rate), (peak, peak)])] * 2


def test_a_second_copy_is_refused(package):
    script = f"""
import sys, lrops
for name in [name for name in sys.modules if name.split(".")[0] == "lrops"]:
    del sys.modules[name]
sys.path.insert(0, {str(package.parent)!r})
import lrops
"""
    result = run_python("-c", script, folder=package)
    assert result.returncode == 1, result
    said = result.stderr.strip().splitlines()[-1]
    assert said.startswith("ImportError: ") and "already loaded" in said and "Start Python anew" in said
    assert str(PACKAGE) in said and str(package) in said


def read(tool, *arguments):
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"no {tool} on this machine")
    return subprocess.run([path, *map(str, arguments)], capture_output=True, encoding="utf-8", check=True).stdout


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.split(".")[0])
def test_how_it_is_linked(library):
    dynamic, segments = read("readelf", "-dW", library), read("readelf", "-lW", library)
    assert "BIND_NOW" in dynamic and "GNU_RELRO" in segments
    assert not re.search("RPATH|RUNPATH|TEXTREL", dynamic)
    assert re.search(r"GNU_STACK.* RW ", segments)
    assert "__stack_chk_fail" in read("nm", "-D", library)
    exported = {line.split(" ", 2)[2] for line in read("nm", "-DC", "--defined-only", library).splitlines()}
    ours = {name for name in exported if not re.search(r"\bstd::", name)}
    assert ours == ({"PyInit__native"} if library.name.startswith("_native") else set())
