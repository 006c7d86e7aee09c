"""Checks an installation: what is there, whether it loads, and whether every path computes the right bits.

The checks run in a second process, because loading a broken library can end the process. Nothing is repaired.
"""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import typing
from functools import partial

import numpy as np

from lrops import _hyperparameters

# Every op and every decay: the class of the schedule and its hyper-parameters.
_CURVES = {
    "inverse_sqrt": ("WarmupInverseSqrt", _hyperparameters.InverseSqrtArguments(1e-3, 1000)),
    "restarts": ("WarmupCosineRestarts", _hyperparameters.RestartsArguments(1e-3, 1000, 49_500, m_mul=0.5)),
}
for _decay in typing.get_args(_hyperparameters.DecayName):
    _CURVES[_decay] = ("WarmupDecay", _hyperparameters.DecayArguments(1e-3, 1000, 100_000, decay=_decay))
_STEPS = np.array([-1, 0, 500, 999, 1000, 33_333, 50_500, 99_999, 100_000, 2**62], np.int64)
_REPORT = "please report this with the output of `python -m lrops doctor --json`"
_STARTED = "LROPS_DOCTOR"  # set in the process that a doctor has started


class Note(Exception):
    """A finding that is no fault."""


def check_python():
    """The interpreter and the platform."""
    return {"version": platform.python_version(), "numpy": np.__version__, "platform": platform.platform()}


def check_module():
    """The compiled module, which needs no TensorFlow, and the libraries next to it."""
    from lrops import _loader

    libraries = ", ".join(_loader.supported_tensorflow())
    return _loader.build_info | {"libraries": libraries, "folder": os.path.dirname(__file__)}


def check_host():
    """The formula, evaluated by the compiled module."""
    from lrops import curves

    return _compare({name: curves.rates(dataclasses.asdict(curve), _STEPS) for name, (_, curve) in _CURVES.items()})


def check_tensorflow():
    """TensorFlow, and whether this lrops has libraries for it."""
    from lrops import _loader

    installed = _loader.distributions()
    names = ", ".join(f"{name} {version}" for name, version in sorted(installed.items()))
    if len(set(installed.values())) > 1:  # before the import, which may fail with mixed files
        raise ImportError(
            f"more than one TensorFlow is installed, in one folder ({names}), and their files are mixed: run `pip "
            f"uninstall -y {' '.join(sorted(installed))}`, then install the one that you want."
        )
    tf = _loader.import_tensorflow()
    cuda = tf.test.is_built_with_cuda()
    return {"version": tf.__version__, "installed": names, "folder": os.path.dirname(tf.__file__), "cuda": cuda}


def check_op():
    """The op's libraries, loaded into TensorFlow."""
    from lrops import _loader

    _loader.load_ops()
    return {"library": _loader.op_library_path()}


def check_keras():
    """Keras, its backend, whether it takes the schedules, and whether its version was tried."""
    import keras

    from lrops import _loader

    backend = getattr(keras, "backend", None) and keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"Keras runs on {backend}, and lrops on TensorFlow: set KERAS_BACKEND=tensorflow before Keras is imported."
        )
    for schedule in _schedules().values():
        keras.optimizers.SGD(schedule)
    versions = [*filter(None, _loader.build_info["keras"].split(", ")), keras.__version__]
    *tried, minor = (tuple(map(int, version.split(".")[:2])) for version in versions)
    if tried and not tried[0] <= minor <= tried[-1]:
        raise Note(
            f"Keras {keras.__version__} takes the schedules, but was never tried: lrops was tried with Keras "
            f"{versions[0]} to {versions[-2]}. If something fails, install one of these."
        )
    return {"version": keras.__version__, "backend": backend}


def check_gpu():
    """The GPUs that TensorFlow sees."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if tf.test.is_built_with_rocm():
        raise Note("this TensorFlow is for ROCm, for which lrops has no kernel: evaluations run on the CPU.")
    if not gpus:
        requirement = f"tensorflow[and-cuda]=={tf.__version__.rpartition('.')[0]}.*"
        raise Note(
            "TensorFlow sees no GPU. For one of NVIDIA it needs the driver, which `nvidia-smi` shows, and CUDA: "
            f"uninstall TensorFlow, then run `pip install '{requirement}'`."
        )
    # The name and the compute capability; of a card that is not NVIDIA's, neither may be known.
    return {"cards": ", ".join(str(tf.config.experimental.get_device_details(gpu)) for gpu in gpus)}


def _schedules():
    from lrops import schedules

    return {name: getattr(schedules, kind)(**dataclasses.asdict(curve)) for name, (kind, curve) in _CURVES.items()}


def _evaluate(device, jit_compile):
    """Evaluates every curve on a device: eagerly (None), in a tf.function (False) or under XLA (True)."""
    import tensorflow as tf

    schedules = _schedules()

    def call(step):  # one function for all curves: most of the time is compilation
        return {name: schedule(step) for name, schedule in schedules.items()}

    if jit_compile is not None:
        call = tf.function(call, jit_compile=jit_compile, autograph=False)
    with tf.device(device):
        rates = call(tf.constant(_STEPS))
    for name, rate in rates.items():
        if jit_compile is None and not rate.device.endswith(device):
            raise RuntimeError(f"TensorFlow evaluated {name} on {rate.device} instead of {device}: {_REPORT}.")
    return _compare({name: rate.numpy() for name, rate in rates.items()})


def _compare(found):
    """Compares the rates of each curve, by its name, with the reference. Returns what the doctor says of them."""
    from lrops import curves, reference

    for name, rates in found.items():
        config = dataclasses.asdict(_CURVES[name][1])
        expected = getattr(reference, curves.function_of(config))(_STEPS, **config)
        wrong = np.flatnonzero(rates.view(np.uint32) != expected.view(np.uint32))
        if len(wrong):
            step = wrong[0]
            raise RuntimeError(
                f"{len(wrong)} of {len(_STEPS)} rates of {name} differ from the reference, the first at step "
                f"{_STEPS[step]}: {rates[step]!r} instead of {expected[step]!r}: {_REPORT}."
            )
    return {"rates": f"{sum(map(len, found.values()))} of {len(found)} curves equal the reference, bit for bit"}


# Name, function, and the check that must have succeeded before.
_CHECKS = {
    "Python": (check_python, None),
    "lrops": (check_module, None),
    "TensorFlow": (check_tensorflow, "lrops"),
    "op": (check_op, "TensorFlow"),
    "Keras": (check_keras, "op"),
    "GPU": (check_gpu, "op"),
    "host function": (check_host, "lrops"),
    "CPU, eager": (partial(_evaluate, "CPU:0", None), "op"),
    "CPU, tf.function": (partial(_evaluate, "CPU:0", False), "op"),
    "CPU, XLA": (partial(_evaluate, "CPU:0", True), "op"),
    "GPU, eager": (partial(_evaluate, "GPU:0", None), "GPU"),
    "GPU, tf.function": (partial(_evaluate, "GPU:0", False), "GPU"),
    "GPU, XLA": (partial(_evaluate, "GPU:0", True), "GPU"),
}


def _finding(name, status, says, facts=None):
    return {"name": name, "status": status, "says": says, "facts": facts or {}}


def _examined():
    """The findings of this process, one after the other."""
    reached = {None}
    for name, (check, need) in _CHECKS.items():
        if need not in reached:
            yield _finding(name, "skipped", f"needs {need}")
            continue
        try:
            facts = check()
        except Exception as error:  # any error is a finding
            yield _finding(name, "note" if isinstance(error, Note) else "failed", str(error) or type(error).__name__)
        else:
            reached.add(name)
            yield _finding(name, "ok", "; ".join(f"{key} {value}" for key, value in facts.items()), facts)


def examine_here():
    """Runs the checks in this process and prints each as a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what TensorFlow or another library prints must not be taken for an answer
    for finding in _examined():
        print(json.dumps(finding), file=answers, flush=True)


def examine():
    """The findings, one after the other, as the dicts that `_finding` makes."""
    # A frozen program and one that embeds Python have no interpreter to start.
    if os.environ.get(_STARTED) or getattr(sys, "frozen", False) or not sys.executable:
        yield from _examined()
        return
    # The child must import what this process imports, however this one was started. PYTHONSAFEPATH (3.11 and newer)
    # keeps Python from putting the working directory first. TensorFlow takes file names in UTF-8 only, whatever the
    # terminal's encoding is. If a training runs on the same GPU, the child must not take the rest of its memory.
    folders = os.pathsep.join(folder for folder in sys.path if isinstance(folder, str))  # Python skips the others too
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"} | os.environ
    environment |= {"PYTHONPATH": folders, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", _STARTED: "1"}
    # The same function gives multiprocessing the flags of its processes.
    flags = subprocess._args_from_interpreter_flags()
    command = [sys.executable, *flags, "-m", "lrops", "doctor", "--here"]
    left = list(_CHECKS)
    # Standard error goes to a file: a pipe that nobody reads would stop the process once it is full.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        pipes = {"stdout": subprocess.PIPE, "stderr": errors, "encoding": "utf-8", "errors": "replace"}
        with subprocess.Popen(command, env=environment, **pipes) as process:
            for line in process.stdout:
                # Something else may print too, such as sitecustomize.
                if left and line.startswith(f'{{"name": "{left[0]}", '):
                    yield json.loads(line)
                    del left[0]
        errors.seek(0)
        last = errors.read().strip().rpartition("\n")[2]
    if left or process.returncode:
        broken, *rest = left or ["end"]
        says = f"this check ended the process with code {process.returncode} ({last}): {_REPORT}."
        yield _finding(broken, "failed", says)
        yield from (_finding(name, "skipped", f"needs {broken}") for name in rest)


def main(as_json=False):
    """Prints the findings. Returns the exit code: 1 if a check failed."""
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            print(f"{finding['status']:<8} {finding['name']:<17} {finding['says']}", flush=True)
    failed = [finding["name"] for finding in findings if finding["status"] == "failed"]
    if as_json:
        checks = {finding.pop("name"): finding for finding in findings}
        print(json.dumps({"healthy": not failed, "checks": checks}, indent=1))
    else:
        bad = f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}."
        print(f"\n{bad if failed else 'Nothing is wrong.'}")
    return 1 if failed else 0
