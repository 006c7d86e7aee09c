"""The Python module, with the rules and the formula, under ASan, UBSan and TSan; `make sanitize` runs the op."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import Decay, InverseSqrt, Restarts
from processes import run_process

ROOT = Path(__file__).parent.parent
MODULE = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
# The sanitizers, and the library to start Python with.
SANITIZERS = {"address,undefined,float-cast-overflow": "libasan.so", "thread": "libtsan.so"}


def run(*command, **options):
    """Runs what was built. Sanitizers of GCC 12 and older may fail if the kernel picks from 2^32 random addresses."""
    orderly = ["setarch", "-R"] if shutil.which("setarch") and not subprocess.call(["setarch", "-R", "true"]) else []
    done = run_process(*orderly, *command, **options)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the sanitizer knows no memory as scattered as on this machine, and setarch -R is not allowed")
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


# Good, bad and random calls, in a different order in each thread. All threads must get the same results.
CALLS = """
import random, struct, threading
import numpy as np
import _native

steps = np.arange(-100, 900).reshape(10, 20, 5)
arrays = [steps, steps.T, steps[::-2, ::3], steps[:0], steps[3, 3, 3:], np.array(2**63 - 1), np.int32([1]), [1]]
reals = [1e-3, 0.5, 1, 0, -1.0, 2.0, 1e-310, float("nan"), float("inf"), "1", None]
integers = [0, 1, 10, 500, 2**62, -(2**62), 2**63 - 1, 2**64, -1, 1.5, None]
dtypes = ["float16", "bfloat16", "float32", "float64", "float128", "", "float32\\0", None, 3]
decays = ["cosine", "linear", "minus_sqrt", "", "cosine\\0", None, 3]
good_calls = GOOD
try:
    import ml_dtypes  # gives NumPy its bfloat16
except ImportError:
    dtypes.remove("bfloat16")

def value_like(good, draw):  # near the rules, or any number, every magnitude equally likely
    if isinstance(good, float):
        return draw.choice([draw.random(), draw.choice(reals), *struct.unpack("d", draw.randbytes(8))])
    return draw.choice([draw.getrandbits(draw.randint(1, 62)), draw.choice(integers)])

def call(draw):
    function, good = draw.choice(good_calls)
    texts = {"dtype": dtypes, "decay": decays}
    changed = {name: draw.choice(texts[name]) if name in texts else value_like(good[name], draw)
               for name in draw.sample(sorted(good), draw.choice([0, 1, 1, 2, 4, 7]))}
    arguments = good | changed
    if draw.random() < 0.1:
        arguments.pop(draw.choice(sorted(good))) if draw.random() < 0.5 else arguments.update(other=1)
    anywhere = np.array([draw.getrandbits(64) - 2**63 >> draw.randint(0, 63) for _ in range(8)])
    try:
        rates = getattr(_native, function)(draw.choice([*arrays, anywhere]), **arguments)
    except (TypeError, ValueError) as error:
        return str(error).split(" at 0x")[0]  # pybind11 shows an object with its address
    assert (rates >= 0).all(), arguments
    return rates.tobytes()

def starts(draw):
    try:
        return _native.cycle_starts(warmup_steps=value_like(0, draw), first_decay_steps=value_like(0, draw),
                                    t_mul=value_like(0.0, draw), at_most=draw.choice(integers))
    except (TypeError, ValueError) as error:
        return str(error)

def run(order, results):
    for seed in order:
        draw = random.Random(seed)
        results[seed] = call(draw), starts(draw)

seeds = range(6000)
results = [{} for _ in range(4)]
orders = [random.Random(thread).sample(seeds, len(seeds)) for thread in range(4)]
threads = [threading.Thread(target=run, args=pair) for pair in zip(orders, results)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert all(one == results[0] for one in results)
print(sum(isinstance(rates, bytes) for rates, _ in results[0].values()))
"""


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("sanitizers", SANITIZERS)
def test_the_python_module(tmp_path, sanitizers):
    pybind11 = pytest.importorskip("pybind11")
    options = ["-std=c++17", "-O1", "-g1", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-pthread"]
    options += ["-fPIC", "-shared", "-fvisibility=hidden"]
    facts = ("VERSION", "COMMIT", "TENSORFLOW_VERSION", "KERAS", "COMPILER", "CUDA")
    options += (f'-DLROPS_{fact}="of a test"' for fact in facts)
    options += (f"-I{folder}" for folder in (ROOT / "cc", pybind11.get_include(), sysconfig.get_path("include")))
    sources = (ROOT / "cc/python" / name for name in ("native.cc", "build_info.cc"))
    built = run_process(COMPILER, *options, *sources, "-o", tmp_path / MODULE)
    if "cannot find" in built.stderr:
        pytest.skip(f"no library for -fsanitize={sanitizers} on this machine")
    assert built.returncode == 0, built.stderr
    # The C++ runtime too: a sanitizer looks for what throws when it starts.
    options = (f"-print-file-name={name}" for name in (SANITIZERS[sanitizers], "libstdc++.so"))
    preload = [subprocess.check_output([COMPILER, option], encoding="utf-8").strip() for option in options]
    # glibc frees the thread-local storage of a thread that has ended, by means that TSan does not see.
    (tmp_path / "suppressions").write_text("race:_dl_deallocate_tls\n")
    environment = {
        "LD_PRELOAD": " ".join(preload),
        "PYTHONMALLOC": "malloc",  # allocates each object separately
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself never frees some of what it allocates
        "TSAN_OPTIONS": f"suppressions='{tmp_path / 'suppressions'}'",
    }
    calls = {
        "warmup_decay": Decay(warmup_steps=10, total_steps=500, decay="minus_sqrt"),
        "warmup_inverse_sqrt": InverseSqrt(warmup_steps=10),
        "warmup_cosine_restarts": Restarts(first_decay_steps=70, cycles=4),
    }
    script = CALLS.replace("GOOD", repr([(name, curve.arguments(dtype="float64")) for name, curve in calls.items()]))
    assert int(run(sys.executable, "-c", script, folder=tmp_path, **environment)) > 1000  # rates, and not errors
