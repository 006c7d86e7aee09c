"""Coverage-guided fuzzing, for a while: inputs that reach new code are kept and changed further, by libFuzzer.

Builds a copy of the package with a library that reports what it runs, and starts a program of tests/fuzz with it. `make
fuzz` goes on for longer. It must not know what those check.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import FOLDER
from test_sanitizers import COMPILER, MODULE, ROOT, compile, module

SECONDS = int(os.environ.get("LROPS_FUZZ_SECONDS", 0))
# How many inputs each program tries in CI, which takes it some 15 s: from the same seed each time, and so much the same
# inputs. `make fuzz` tries others each time.
RUNS = {"formula": 40_000, "graph": 3000}


def build(*arguments):
    built = compile(*arguments)
    assert built.returncode == 0, built.stderr


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("program", RUNS)
def test_nothing_is_found(tmp_path, package, program):
    atheris = pytest.importorskip("atheris")
    build("-c", ROOT / "tests/fuzz/coverage.cc", "-o", tmp_path / "coverage.o")
    if program == "formula":
        library, sources = package / MODULE, module()
    else:
        library = package / FOLDER / "_lrops_ops.so"
        sources = [ROOT / "cc/ops/warmup_cosine_ops.cc", ROOT / "cc/kernels/warmup_cosine_cpu.cc", "-shared"]
        sources += [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    library.unlink()
    build("-fsanitize-coverage=trace-pc,trace-cmp", *sources, tmp_path / "coverage.o", "-o", library)

    limit = f"-max_total_time={SECONDS}" if SECONDS else f"-runs={RUNS[program]}"
    command = [
        sys.executable,
        ROOT / f"tests/fuzz/{program}.py",
        limit,
        f"-seed={0 if SECONDS else 1}",
        "-max_len=128",
        "-len_control=0",
        "-rss_limit_mb=0",  # TensorFlow keeps something of each graph, which adds up in hours
    ]
    fuzzer = tmp_path / "fuzzer.so"  # libFuzzer, which the library reports to; its own folder's name may have a space
    fuzzer.symlink_to(Path(atheris.path()) / "ubsan_with_fuzzer.so")
    environment = os.environ | {
        "LD_PRELOAD": str(fuzzer),
        "PYTHONPATH": f"{tmp_path}:{ROOT / 'tests'}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    log = tmp_path / "log"
    with open(log, "w") as file:
        run = subprocess.run(command, cwd=tmp_path, env=environment, stdout=file, stderr=file, timeout=SECONDS + 300)
    text = log.read_text(errors="replace")
    # The log ends with the input, which also is the file crash-* in tmp_path.
    assert run.returncode == 0, text[-10000:]
    first, *_, last = map(int, re.findall(r" cov: (\d+) ", text))
    print(f"{program}: {text.splitlines()[-1]}, {last} edges, {first} of them at first")
    assert last > first, "the library does not report"
