"""Fuzzes the nodes of a graph: builds the op library so that libFuzzer sees its branches, and runs fuzz_nodes.py on it.

It needs g++ and atheris: `make fuzz`. It ends with an error, and the input, if a node breaks a rule.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris
import tensorflow as tf

import lrops
from lrops import _loader

ROOT = Path(__file__).resolve().parent.parent


def instrument(package: Path) -> None:
    """Puts an op library that reports its branches into a copy of the package."""
    shutil.copytree(Path(lrops.__file__).parent, package)
    library = package / Path(_loader.library_paths(tf.__version__)["ops"]).relative_to(Path(lrops.__file__).parent)
    library.unlink()
    compiler = [os.environ.get("CXX", "g++"), "-std=c++17", "-O1", "-fPIC", "-I", ROOT / "cc"]
    counters = package.parent / "coverage.o"
    sources = [ROOT / "cc/ops/learning_rate_ops.cc", ROOT / "cc/kernels/learning_rate_cpu.cc"]
    flags = [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    for arguments in (
        ["-c", ROOT / "tools/coverage.cc", "-o", counters],
        ["-fsanitize-coverage=trace-pc,trace-cmp", *sources, counters, "-shared", *flags, "-o", library],
    ):
        subprocess.run([*map(str, compiler + arguments)], check=True)


def main():
    """Fuzzes for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=600, help="(%(default)s)")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        instrument(Path(folder, "lrops"))
        # The library reports to libFuzzer. The folder of atheris may have a space, which LD_PRELOAD does not take.
        fuzzer = Path(folder, "fuzzer.so")
        fuzzer.symlink_to(Path(atheris.path()) / "ubsan_with_fuzzer.so")
        options = [f"-max_total_time={seconds}", "-max_len=128", "-len_control=0"]
        options += ["-rss_limit_mb=0"]  # TensorFlow keeps something of each graph, which adds up in hours
        environment = {"LD_PRELOAD": str(fuzzer), "PYTHONPATH": folder, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, str(ROOT / "tools" / "fuzz_nodes.py"), *options]
        sys.exit(subprocess.run(command, env=os.environ | environment).returncode)


if __name__ == "__main__":
    main()
