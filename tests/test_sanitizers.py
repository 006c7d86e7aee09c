"""The formula and its rules under the compiler's sanitizers, with random arguments, from several threads.

Compiles tests/native/stress.cc. It must not need TensorFlow or the installed package.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
SANITIZERS = {"address,undefined,float-cast-overflow": 40_000, "thread": 20_000}


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("sanitizers", SANITIZERS)
def test_clean(tmp_path, sanitizers):
    program = tmp_path / "stress"
    command = [COMPILER, "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-fsanitize={sanitizers}"]
    command += ["-fno-sanitize-recover=all", "-pthread", "-I", ROOT / "cc", ROOT / "tests/native/stress.cc"]
    built = subprocess.run([*map(str, command), "-o", program], capture_output=True, encoding="utf-8", timeout=300)
    if "cannot find" in built.stderr:
        pytest.skip(f"no library for -fsanitize={sanitizers} on this machine")
    assert built.returncode == 0, built.stderr
    run = subprocess.run([program, str(SANITIZERS[sanitizers])], capture_output=True, encoding="utf-8", timeout=300)
    assert run.returncode == 0 and not run.stderr, run.stderr
    assert int(run.stdout) > 1000  # rates, of curves that the rules took
