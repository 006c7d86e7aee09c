"""Installs lrops beside each TensorFlow that it supports, runs it there, and writes docs/compatibility.md.

Each row is a new environment and takes a minute or two. CI runs two rows: `make ends`.
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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "cmake"))

from pyproject import MINORS, group  # noqa: E402
from wheels import find_pythons, minor_of, released, requirement  # noqa: E402

CPU, FULL = "tensorflow-cpu", "tensorflow"
# What a row runs beside the doctor; the names are the table's columns.
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
PYTEST = ["-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-q", "-p", "no:cacheprovider"]
TESTS = [str(ROOT / "tests" / name) for name in ("test_exactness.py", "test_saved_by_older.py")]
COMPILED, PLACED = "compiled for a GPU", "placed on a GPU"
CHECKS = {
    "doctor": ["-m", "lrops", "doctor"],
    "exactness": [*PYTEST, *TESTS, "-k", "same_bits_in_every_dtype and float32 or older_version"],
    "training": ["-c", TRAIN.format(jit=False)],
    "training, XLA": ["-c", TRAIN.format(jit=True)],
    COMPILED: [*PYTEST, str(ROOT / "tests" / "gpu" / "test_xla_gpu.py")],
    PLACED: [*PYTEST, str(ROOT / "tests" / "gpu" / "test_placement.py")],
}
ABOUT = "import keras, lrops, tensorflow; print(tensorflow.__version__, keras.__version__, lrops.build_info['commit'])"
# What must be refused: what is installed beside lrops, the command, and a part of what it must say.
REFUSALS = {
    "TensorFlow 2.15": ([f"{CPU}==2.15.*"], ["-c", "import lrops"], "found TensorFlow 2.15"),
    "a nightly": (["tf-nightly-cpu"], ["-c", "import lrops"], "whose binary interface differs"),
    "no TensorFlow": ([], ["-c", "import lrops"], "lrops needs TensorFlow, and none is installed"),
    "both flavours": (  # of one version they work as one
        [f"{CPU}=={MINORS[-2]}.*", f"{FULL}=={MINORS[-1]}.*"],
        ["-m", "lrops", "doctor"],
        "more than one TensorFlow is installed",
    ),
}
# From the sdist with `--no-build-isolation`, as in NVIDIA's last container with TensorFlow, which has 2.17.
SOURCE, SOURCE_MINOR = "from source", "2.17"


def wheel_for(python, wheels):
    """The wheel of the folder for this Python, or None."""
    return next(wheels.glob(f"lrops-*-cp{python.replace('.', '')}-*.whl"), None)


def rows(pythons, tensorflows):
    """Python, TensorFlow, flavour and how lrops is installed, newest TensorFlow first.

    Every Python with the newest release that it has, every TensorFlow in both flavours, and one build from source.
    """
    chosen = []
    for python in pythons:
        fitting = [tensorflow for tensorflow in tensorflows if released(python, tensorflow)]
        releases = [tensorflow for tensorflow in fitting if tensorflow == minor_of(tensorflow)]
        chosen += [(python, tensorflow, CPU) for tensorflow in (releases or fitting)[-1:]]
    for at, tensorflow in enumerate(reversed(tensorflows)):
        fitting = [python for python in pythons if released(python, tensorflow)]
        for flavour in (CPU, FULL):
            if fitting and (tensorflow, flavour) not in {row[1:] for row in chosen}:
                chosen.append((fitting[(at + (flavour == FULL)) % len(fitting)], tensorflow, flavour))
    source = [(python, SOURCE_MINOR, CPU, SOURCE) for python in pythons if released(python, SOURCE_MINOR)][:1]
    return [(*row, "wheel") for row in chosen] + source


def compiles_for_gpu(python, tensorflow, flavour):
    """Whether this TensorFlow lowers for a GPU, and JAX, whose compiler that takes, can be installed beside it."""
    return flavour == FULL and python != "3.10" and minor_of(tensorflow) not in ("2.16", "2.17", "2.18")


def places_on_gpu(tensorflow, flavour):
    """Whether this TensorFlow has kernels for a GPU, and takes two GPUs of the test's own."""
    return flavour == FULL and minor_of(tensorflow) not in ("2.16", "2.17")


def install(interpreter, folder, requirements, package):
    """The interpreter of a new environment with lrops and these requirements; of an sdist, what is built there."""
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    pip = [python, "-m", "pip", "install", "-qq"]
    subprocess.run([*pip, "pytest", "mpmath", *requirements], check=True)
    subprocess.run([*pip, "--no-cache-dir", package], check=True)  # pip's cache may have it for another TensorFlow
    return python


def ask(python, command):
    """A command's exit code and what it said, outside the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([python, *command], cwd=folder, capture_output=True, text=True, timeout=900)
    return result.returncode, result.stdout + result.stderr


def run_row(interpreter, tensorflow, flavour, package, compiles, places):
    """The versions of TensorFlow and Keras, the commit of lrops, and what each check said.

    That is "ok", how it failed, or nothing if it was not run: `COMPILED` unless `compiles`, `PLACED` unless `places`.
    """
    with tempfile.TemporaryDirectory() as folder:
        needed = [flavour + requirement(tensorflow), *(group("xla-gpu") if compiles else ())]
        interpreter = install(interpreter, Path(folder), needed, package)
        code, text = ask(interpreter, ["-c", ABOUT])
        found = ["?"] * 3 if code else text.split()[:3]
        said = {}
        for name, command in CHECKS.items():
            if (name == COMPILED and not compiles) or (name == PLACED and not places):
                said[name] = ""
                continue
            code, text = ask(interpreter, command)
            code = code or re.search(r"\d+ skipped", text) and "skipped"  # what tests nothing must not pass
            said[name] = f"FAILED ({code})" if code else "ok"
            if code:
                print(text[-3000:], file=sys.stderr)
        return found, said


def run_refusal(interpreter, wheel, requirements, command, sentence):
    """ "refused" where the command fails with the sentence."""
    with tempfile.TemporaryDirectory() as folder:
        code, text = ask(install(interpreter, Path(folder), requirements, wheel), command)
    if code == 1 and sentence in text:
        return "refused"
    print(text[-3000:], file=sys.stderr)
    return f"FAILED ({code})"


def write(path, table, refusals, commits):
    """docs/compatibility.md."""
    columns = ["Python", "TensorFlow", "lrops", "Keras", *CHECKS]
    system = " ".join([platform.machine(), *platform.libc_ver()])
    lines = [
        "# Where lrops was run",
        "",
        f"`make matrix` wrote this page on {datetime.date.today()}, on {system}. Each row is a new",
        "environment with lrops and that TensorFlow from PyPI. lrops is the wheel, or was built from its sdist with",
        '`pip install --no-build-isolation` ("from source"). What is not in the table was not run.',
        f"lrops is of commit {', '.join(sorted(commits))}.",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        "What must be refused, with a sentence that names the cure:",
        "",
        "| installed | |",
        "|---|---|",
        *(f"| {name} | {said} |" for name, said in refusals),
    ]
    path.write_text("\n".join(lines) + "\n")


def main():
    """Runs the rows, prints each as it ends, writes the page; exit code 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="PYTHON:TENSORFLOW:FLAVOUR[:HOW]",
        help=f"such as 3.11:2.20:{CPU} or '3.11:2.17:{CPU}:{SOURCE}' (all)",
    )
    parser.add_argument("--tensorflow", nargs="+", default=MINORS, help="of all rows, as for wheels.py (%(default)s)")
    parser.add_argument("--refusals", nargs="*", choices=REFUSALS, default=list(REFUSALS), help="(all)")
    parser.add_argument("--jobs", type=int, default=2, help="rows at a time (%(default)s)")
    parser.add_argument("--wheels", type=Path, default=ROOT / "dist", help="folder of the wheels (%(default)s)")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/compatibility.md", help="%(default)s")
    options = parser.parse_args()
    pythons, wheels = find_pythons(), options.wheels.resolve()
    chosen = [(*row.split(":"), "wheel")[:4] for row in options.rows or ()] or rows(list(pythons), options.tensorflow)
    table, refusals, commits = [], [], set()
    refusing = next(python for python in ("3.11", *pythons) if wheel_for(python, wheels))  # 3.11 has 2.15 too

    def refused(name):
        return [name, run_refusal(pythons[refusing], wheel_for(refusing, wheels), *REFUSALS[name])]

    def tried(row):
        python, tensorflow, flavour, how = row
        package = next(wheels.glob("lrops-*.tar.gz"), None) if how == SOURCE else wheel_for(python, wheels)
        if not package:
            missing = "sdist" if how == SOURCE else f"wheel for Python {python}"
            sys.exit(f"{wheels} has no {missing}: run `make wheels` where Python {python} is found")
        compiles = compiles_for_gpu(python, tensorflow, flavour)
        start = time.monotonic()
        (version, keras, commit), said = run_row(
            pythons[python], tensorflow, flavour, package, compiles, places_on_gpu(tensorflow, flavour)
        )
        return commit, [python, f"{flavour} {version}", how, keras, *said.values()], time.monotonic() - start

    for row in [row for row in chosen if not released(*row[:2])]:
        print(f"{row[0]} | {row[2]} {row[1]} | was never released for this Python")
        chosen.remove(row)
    with ThreadPoolExecutor(options.jobs) as pool:  # while one row downloads, another one runs
        for row in pool.map(refused, options.refusals):
            refusals.append(row)
            print(*row, sep=" | ", flush=True)
        for commit, row, seconds in pool.map(tried, chosen):
            commits.add(commit)
            table.append(row)
            write(options.page, table, refusals, commits)  # of a run that is cut short, what it ran
            print(*row, f"{seconds:.0f} s", sep=" | ", flush=True)
    sys.exit(any("FAILED" in cell for row in table + refusals for cell in row))


if __name__ == "__main__":
    main()
