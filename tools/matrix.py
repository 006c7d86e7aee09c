"""Installs lrops next to each TensorFlow that it supports, runs it there, and writes docs/compatibility.md.

Each row is a new environment and takes a minute or two, with an older Keras five. CI runs two rows: `make ends`.
"""

import argparse
import datetime
import platform
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "cmake"))

from pyproject import KERAS, MINORS, group  # noqa: E402
from wheels import as_tuple, find_pythons, released, requirement  # noqa: E402

CPU, FULL = "tensorflow-cpu", "tensorflow"
TRAIN = """
import keras, lrops, numpy as np
from lrops.reference import warmup_decay
curve = dict(initial_learning_rate=1e-2, warmup_steps=3, total_steps=20)
x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
model = keras.Sequential([keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)])
model.compile(keras.optimizers.AdamW(lrops.WarmupCosineDecay(**curve), weight_decay=0.1), "mse", jit_compile={jit})
history = model.fit(x, x**2, epochs=3, batch_size=16, verbose=0, callbacks=[lrops.LearningRateLogger()]).history
assert np.all(np.isfinite(history["loss"])) and history["loss"][-1] < history["loss"][0], history
rate = float(np.asarray(model.optimizer.learning_rate))
assert rate == warmup_decay(np.array(12), **curve, dtype="float32"), rate
"""


def tests(*names):
    """The arguments of Python for these tests."""
    pytest = ["-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-q", "-p", "no:cacheprovider"]
    return [*pytest, *(str(ROOT / "tests" / name) for name in names)]


# What a row runs; the names are the table's columns.
EXACT = tests("test_exactness.py", "test_saved_by_older.py")
CHECKS = {
    "doctor": ["-m", "lrops", "doctor"],
    "exactness": [*EXACT, "-k", "same_bits_in_every_mode and float32 or older_version"],
    "training": ["-c", TRAIN.format(jit=False)],
    "training, XLA": ["-c", TRAIN.format(jit=True)],
    "tests of training": tests("test_callbacks.py", "test_linear_warmup.py"),
    "compiled for a GPU": tests("gpu/test_xla_gpu.py"),
    "placed on a GPU": tests("gpu/test_placement.py"),
}
ABOUT = "import keras, lrops, tensorflow; print(tensorflow.__version__, keras.__version__, lrops.build_info['commit'])"
# What must raise an error: what is installed with lrops, the command, and a part of its message.
ERRORS = {
    "TensorFlow 2.15": ([f"{CPU}==2.15.*"], ["-c", "import lrops"], "found TensorFlow 2.15"),
    "a nightly": (["tf-nightly-cpu"], ["-c", "import lrops"], "whose binary interface differs"),
    "no TensorFlow": ([], ["-c", "import lrops"], "lrops needs TensorFlow, and none is installed"),
    "both flavours": (  # of one version they work as one
        [f"{CPU}=={MINORS[-2]}.*", f"{FULL}=={MINORS[-1]}.*"],
        ["-m", "lrops", "doctor"],
        "more than one TensorFlow is installed",
    ),
}
# NVIDIA's last container with TensorFlow has 2.17, and lrops is built there.
SOURCE, SOURCE_MINOR = "from source", "2.17"
OLDEST_KERAS = {MINORS[0]: "3.0", MINORS[-1]: "3.12"}  # that these TensorFlows allow


class Row(NamedTuple):
    """An environment, and how lrops is installed there: the wheel, or what pip builds of the sdist."""

    python: str
    tensorflow: str
    flavour: str
    how: str = "wheel"
    keras: str = ""  # the newest

    def checks(self):
        """The names of the checks that can run. JAX, whose compiler the first for a GPU uses, needs Python 3.11."""
        minor = as_tuple(self.tensorflow)
        left_out = set() if self.keras else {"tests of training"}
        if self.flavour == CPU or minor < (2, 19) or self.python == "3.10":
            left_out.add("compiled for a GPU")
        if self.flavour == CPU or minor < (2, 18):
            left_out.add("placed on a GPU")
        return [name for name in CHECKS if name not in left_out]

    def requirements(self):
        """What is installed before lrops."""
        keras = [f"keras=={self.keras}.*", *group("plot")] if self.keras else []
        xla = group("xla-gpu") if "compiled for a GPU" in self.checks() else []
        return [self.flavour + requirement(self.tensorflow), *keras, *xla]


def all_rows(pythons):
    """Each Python with the newest TensorFlow, each TensorFlow in both flavours, a source build, and older Kerases."""
    chosen = [Row(python, MINORS[-1], CPU) for python in pythons]
    for at, tensorflow in enumerate(reversed(MINORS)):
        fitting = [python for python in pythons if released(python, tensorflow)]
        for shift, flavour in enumerate((CPU, FULL) if fitting else ()):
            chosen.append(Row(fitting[(at + shift) % len(fitting)], tensorflow, flavour))
    for python in [python for python in pythons if released(python, MINORS[0])][-1:]:
        chosen.append(Row(python, SOURCE_MINOR, CPU, SOURCE))
        for tensorflow, oldest in OLDEST_KERAS.items():
            allowed = [keras for keras in KERAS if as_tuple(keras) >= as_tuple(oldest)]
            chosen += [Row(python, tensorflow, CPU, keras=keras) for keras in allowed]
    return list(dict.fromkeys(chosen))


def package_for(row, wheels):
    """The file of lrops that pip installs."""
    wheel = f"lrops-*-cp{row.python.replace('.', '')}-*_{platform.machine()}.whl"
    pattern = "lrops-*.tar.gz" if row.how == SOURCE else wheel
    for path in wheels.glob(pattern):
        return path
    sys.exit(f"{wheels} has no {pattern}: run `make wheels` where Python {row.python} is found")


def install(interpreter, folder, requirements, package):
    """The interpreter of a new environment with these requirements, and with lrops."""
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    pip = [f"{folder}/bin/python", "-m", "pip", "install", "-qq"]
    subprocess.run([*pip, "pytest", "mpmath", *requirements], check=True)
    subprocess.run([*pip, "--no-cache-dir", package], check=True)  # pip's cache may have it for another TensorFlow
    return pip[0]


def ask(python, command):
    """A command's exit code and its output, outside the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([python, *command], cwd=folder, capture_output=True, text=True, timeout=1800)
    return result.returncode, result.stdout + result.stderr


def run_row(row, interpreter, package):
    """The cells of a row, the commit of lrops, and the seconds that it took. A check that did not run is empty."""
    start, said = time.monotonic(), dict.fromkeys(CHECKS, "")
    with tempfile.TemporaryDirectory() as folder:
        python = install(interpreter, folder, row.requirements(), package)
        if row.keras:  # alone: it would bring `tensorflow`
            alone = [python, "-m", "pip", "install", "-qq", "--no-deps", "tf_keras" + requirement(row.tensorflow)]
            subprocess.run(alone, check=True)
        code, text = ask(python, ["-c", ABOUT])
        version, keras, commit = ["?"] * 3 if code else text.split()[:3]
        for name in row.checks():
            code, text = ask(python, CHECKS[name])
            if name != "tests of training":
                code = code or re.search(r"\d+ skipped", text) and "skipped"  # what tests nothing must not pass
            said[name] = f"FAILED ({code})" if code else "ok"
            if code:
                print(text[-9000:], file=sys.stderr)
    cells = [row.python, f"{row.flavour} {version}", row.how, keras, *said.values()]
    return cells, commit, time.monotonic() - start


def run_error(interpreter, package, requirements, command, sentence):
    """ "raises" if the command fails with the sentence."""
    with tempfile.TemporaryDirectory() as folder:
        code, text = ask(install(interpreter, folder, requirements, package), command)
    if code == 1 and sentence in text:
        return "raises"
    print(text[-9000:], file=sys.stderr)
    return f"FAILED ({code})"


def write(path, table, errors, commits):
    """docs/compatibility.md."""
    columns = ["Python", "TensorFlow", "lrops", "Keras", *CHECKS]
    lines = [
        "# Where lrops was run",
        "",
        f"`make matrix` wrote this page on {datetime.date.today()}, on {platform.machine()} with "
        f"{' '.join(platform.libc_ver())}, of commit {', '.join(sorted(commits))}.",
        "Each row is a new environment with TensorFlow and Keras from PyPI. lrops is the wheel, or what `pip install`",
        'built of the sdist ("from source"). An empty cell was not run.',
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        "With these installed, lrops must raise an error that names the fix:",
        ", ".join(f"{name} ({said})" for name, said in errors) + ".",
    ]
    path.write_text("\n".join(lines) + "\n")


def main():
    """Runs the rows, prints each as it ends, and writes the page. The exit code is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    form = "PYTHON:TENSORFLOW:FLAVOUR[:HOW[:KERAS]]"
    parser.add_argument("--rows", nargs="+", metavar=form, help=f"such as 3.11:2.20:{CPU}:wheel:3.12 (all)")
    parser.add_argument("--errors", nargs="*", choices=ERRORS, default=list(ERRORS), help="(all)")
    parser.add_argument("--jobs", type=int, default=2, help="rows at a time (%(default)s)")
    parser.add_argument("--wheels", type=Path, default=ROOT / "dist", help="folder of the wheels (%(default)s)")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/compatibility.md", help="%(default)s")
    options = parser.parse_args()
    pythons, wheels = find_pythons(), options.wheels.resolve()
    chosen = [Row(*row.split(":")) for row in options.rows or ()] or all_rows(list(pythons))
    chosen = [row for row in chosen if released(row.python, row.tensorflow)]
    packages = [package_for(row, wheels) for row in chosen]
    first = next((row for row in chosen if row.python == "3.11"), chosen[0])  # 3.11 has TensorFlow 2.15 too
    table, errors, commits = [], [], set()

    def failing(name):
        return [name, run_error(pythons[first.python], package_for(first, wheels), *ERRORS[name])]

    with ThreadPoolExecutor(options.jobs) as pool:  # while one row downloads, another one runs
        for row in pool.map(failing, options.errors):
            errors.append(row)
            print(*row, sep=" | ", flush=True)
        for cells, commit, seconds in pool.map(run_row, chosen, [pythons[row.python] for row in chosen], packages):
            commits.add(commit)
            table.append(cells)
            write(options.page, table, errors, commits)  # after each row, so that a run that is cut short leaves a page
            print(*cells, f"{seconds:.0f} s", sep=" | ", flush=True)
    sys.exit(any("FAILED" in cell for row in table + errors for cell in row))


if __name__ == "__main__":
    main()
