"""Checks an installation from the ground up: what is there, whether it loads, whether every path gives the right bits.

Called by `python -m lrops doctor`. The checks run in a process of their own, so that one which ends the process, as
loading a broken library can, is a finding like any other. It must not repair anything.
"""

import ctypes
import importlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys

import numpy as np

_CURVE = {"initial_learning_rate": 1e-3, "warmup_steps": 1000, "total_steps": 100_000, "alpha": 0.001}
_STEPS = np.array([-1, 0, 500, 999, 1000, 33_333, 50_500, 99_999, 100_000, 2**62], np.int64)
_OK, _NOTE, _FAILED, _SKIPPED = "ok", "note", "failed", "skipped"


class _Note(Exception):
    """What is worth knowing and no fault."""


def _version(*names):
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def check_python():
    """The interpreter and the platform."""
    return f"{platform.python_version()}, NumPy {np.__version__}, {platform.platform()}"


def check_module():
    """The compiled module, which needs no TensorFlow."""
    loader = importlib.import_module("lrops._loader")
    info = loader.build_info
    return (
        f"{info['version']}, built by {info['compiler']}, for TensorFlow {', '.join(loader.supported_tensorflow())}; "
        f"CUDA: {info['cuda']}; {loader._PACKAGE}"
    )


def check_host():
    """The formula, evaluated by the compiled module."""
    native = importlib.import_module("lrops._native")
    return _compare(native.warmup_cosine_decay(_STEPS, **_CURVE, dtype="float32"))


def check_tensorflow():
    """TensorFlow, and whether this lrops carries libraries for it."""
    tf = importlib.import_module("lrops._loader")._import_tensorflow()
    installed = _version("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")
    if "," in installed:
        raise ImportError(
            f"more than one TensorFlow is installed over the other ({installed}): run `pip uninstall -y "
            "tensorflow tensorflow-cpu`, then install the one that you want."
        )
    return f"{tf.__version__} ({installed or 'not installed by pip'})"


def check_op():
    """The op's libraries, loaded into TensorFlow."""
    loader = importlib.import_module("lrops._loader")
    tf = loader._import_tensorflow()
    loader.load_ops()
    return (
        ", ".join(
            f"{os.path.basename(path)} {os.path.getsize(path) / 1024:.0f} KiB"
            for path in loader.library_paths(tf.__version__).values()
        )
        + f" in {os.path.dirname(loader.library_paths(tf.__version__)['ops'])}"
    )


def check_keras():
    """Keras, its backend, and whether it takes the schedule."""
    import keras

    schedules = importlib.import_module("lrops.schedules")
    backend = getattr(keras, "backend", None) and keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"Keras runs on {backend}, and lrops on TensorFlow: set KERAS_BACKEND=tensorflow before Keras is imported."
        )
    keras.optimizers.SGD(schedules.WarmupCosineDecay(**_CURVE))
    return _version("keras", "tf_keras") + ", backend tensorflow"


def check_eager():
    """An evaluation on the CPU, eagerly."""
    return _on_device("CPU:0", None)


def check_graph():
    """An evaluation on the CPU in a tf.function."""
    return _on_device("CPU:0", False)


def check_xla():
    """An evaluation on the CPU, compiled by XLA."""
    return _on_device("CPU:0", True)


def check_gpu():
    """NVIDIA's driver and cards, and whether the CUDA kernel covers them."""
    import tensorflow as tf

    driver = _driver()
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        reason = f"although there is a driver {driver}" if driver else "and no NVIDIA driver is installed"
        raise _Note(f"TensorFlow sees no GPU, {reason}; built with CUDA: {tf.test.is_built_with_cuda()}")
    cuda = importlib.import_module("lrops._native").build_info["cuda"]
    least = re.search(r"compute_(\d+) .*driver >= (\d+)", cuda)
    if least is None:
        raise RuntimeError(f"this lrops has no CUDA kernel ({cuda}): install a wheel that has, or train under XLA.")
    architecture, least_driver = int(least[1]), int(least[2])
    cards = []
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        capability = details.get("compute_capability", (0, 0))
        cards.append(f"{details.get('device_name')} (compute {'.'.join(map(str, capability))})")
        if capability[0] * 10 + capability[1] < architecture:
            raise RuntimeError(f"{cards[-1]} is older than what the CUDA kernel is for: {cuda}.")
    if driver and int(driver.split(".")[0]) < least_driver:
        raise RuntimeError(f"NVIDIA driver {driver} is older than the CUDA kernel needs ({cuda}): update it.")
    return f"{', '.join(cards)}; driver {driver}"


def check_gpu_graph():
    """An evaluation on the first GPU by the CUDA kernel."""
    return _on_device("GPU:0", False)


def check_gpu_xla():
    """An evaluation on the first GPU, compiled by XLA."""
    return _on_device("GPU:0", True)


# Name, function, and what must have succeeded before.
_CHECKS = {
    "Python": (check_python, ()),
    "lrops": (check_module, ()),
    "host function": (check_host, ("lrops",)),
    "TensorFlow": (check_tensorflow, ("lrops",)),
    "op": (check_op, ("TensorFlow",)),
    "Keras": (check_keras, ("op",)),
    "CPU, eager": (check_eager, ("op",)),
    "CPU, tf.function": (check_graph, ("op",)),
    "CPU, XLA": (check_xla, ("op",)),
    "GPU": (check_gpu, ("op",)),
    "GPU, tf.function": (check_gpu_graph, ("GPU",)),
    "GPU, XLA": (check_gpu_xla, ("GPU",)),
}


def _on_device(device, jit_compile):
    import tensorflow as tf

    schedule = importlib.import_module("lrops.schedules").WarmupCosineDecay(**_CURVE)
    call = schedule if jit_compile is None else tf.function(schedule.__call__, jit_compile=jit_compile)
    with tf.device(device):
        rates = call(tf.constant(_STEPS))
    return _compare(rates.numpy())


def _compare(rates):
    from lrops import reference

    expected = reference.warmup_cosine_decay(_STEPS, **_CURVE)
    wrong = np.flatnonzero(rates.view(np.uint32) != expected.view(np.uint32))
    if len(wrong):
        step = wrong[0]
        raise RuntimeError(
            f"{len(wrong)} of {len(_STEPS)} rates differ from the reference, the first at step {_STEPS[step]}: "
            f"{rates[step]!r} instead of {expected[step]!r}. Please report this with the output of "
            "`python -m lrops doctor --json`."
        )
    return f"{len(_STEPS)} rates, the bits of the reference"


def _driver():
    """The version of NVIDIA's driver, or None."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    version = ctypes.create_string_buffer(80)
    if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(version, 80):
        return None
    return version.value.decode()


def examine_here():
    """Runs the checks in this process and prints each as a line of JSON, its name before it begins."""
    results = {}
    for name, (check, needs) in _CHECKS.items():
        print(json.dumps({"begins": name}), flush=True)
        missing = [need for need in needs if results[need] != _OK]
        try:
            status, says = (_SKIPPED, f"needs {missing[0]}") if missing else (_OK, check())
        except _Note as note:
            status, says = _NOTE, str(note)
        except Exception as error:  # whatever it is, it is a finding
            status, says = _FAILED, str(error) or type(error).__name__
        results[name] = status
        print(json.dumps({"name": name, "status": status, "says": says}), flush=True)


def examine():
    """The checks, one after the other, as dicts with name, status and says."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
    command = [sys.executable, "-m", "lrops", "doctor", "--here"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as process:
        begun = None
        for line in process.stdout:
            try:
                finding = json.loads(line)
            except ValueError:  # something that a library printed
                continue
            begun = finding.get("begins")
            if not begun:
                yield finding
        errors = process.stderr.read().strip().splitlines()
    if begun or process.returncode:
        ended = f"by signal {-process.returncode}" if process.returncode < 0 else f"with code {process.returncode}"
        says = f"the process ended {ended}. {errors[-1] if errors else ''}"
        yield {"name": begun or "doctor", "status": _FAILED, "says": says.strip()}


def main(as_json=False):
    """Prints the findings. Returns the exit code: 1 where a check failed."""
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            print(f"{finding['status']:<8} {finding['name']:<17} {finding['says']}", flush=True)
    failed = [finding["name"] for finding in findings if finding["status"] == _FAILED]
    if as_json:
        print(json.dumps({"healthy": not failed, "checks": findings}, indent=1))
    elif failed:
        print(f"\n{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}.")
    else:
        print("\nNothing is wrong.")
    return 1 if failed else 0
