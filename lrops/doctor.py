"""Checks an installation: what is there, whether it loads, and whether every path computes the right bits.

The checks run in a second process, because loading a broken library can end the process. Nothing is repaired.
"""

import contextlib
import ctypes
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import typing

import numpy as np

from lrops import _hyperparameters

# Every op and every decay: the class of the schedule and its hyper-parameters.
_CURVES = {
    **{
        decay: ("WarmupDecay", _hyperparameters.DecayArguments(1e-3, 1000, 100_000, decay=decay))
        for decay in typing.get_args(_hyperparameters.DecayName)
    },
    "inverse_sqrt": ("WarmupInverseSqrt", _hyperparameters.InverseSqrtArguments(1e-3, 1000)),
    "restarts": ("WarmupCosineRestarts", _hyperparameters.RestartsArguments(1e-3, 1000, 49_500, m_mul=0.5)),
}
_STEPS = np.array([-1, 0, 500, 999, 1000, 33_333, 50_500, 99_999, 100_000, 2**62], np.int64)
_REPORT = "please report this with the output of `python -m lrops doctor --json`"
_OK, _NOTE, _FAILED, _SKIPPED = "ok", "note", "failed", "skipped"


_STARTED = "LROPS_DOCTOR"  # set in the process that a doctor has started


class Note(Exception):
    """A finding that is no fault. If it has facts, the checks that need this one go on."""

    def __init__(self, says, facts=None):
        super().__init__(says)
        self.facts = facts or {}


def check_python():
    """The interpreter and the platform."""
    return {"version": platform.python_version(), "numpy": np.__version__, "platform": platform.platform()}


def check_module():
    """The compiled module, which needs no TensorFlow, and the libraries beside it."""
    from lrops import _loader, _native

    folder = os.path.dirname(_native.__file__)
    return _loader.build_info | {"libraries_for": _loader.supported_tensorflow(), "folder": folder}


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
    facts = {
        "version": tf.__version__,
        "distribution": names or "not installed by pip",
        "folder": _loader.tensorflow_folder(tf),
        "built_with_cuda": tf.test.is_built_with_cuda(),
    }
    if len(installed) > 1:
        raise Note(
            f"more than one distribution of TensorFlow is installed, in one folder and of the same version ({names}). "
            "That works. To remove one, uninstall all of them, then install the one that you want to keep.",
            facts,
        )
    return facts


def check_op():
    """The op's libraries, loaded into TensorFlow."""
    import tensorflow as tf

    from lrops import _loader

    _loader.load_ops()
    paths = _loader.library_paths(tf.__version__).values()
    (folder,) = {os.path.dirname(path) for path in paths}
    return {"folder": folder, "loaded": [os.path.basename(path) for path in paths]}


def check_kernels():
    """The devices that each op has a kernel for."""
    import tensorflow as tf

    tf.constant(0)  # brings up the devices, and XLA's kernels with them
    kernels = registered_kernels()
    needed = {"CPU", "XLA_CPU_JIT"}
    if not tf.test.is_built_with_rocm():
        needed.add("GPU")
    if tf.config.list_physical_devices("GPU") and tf.test.is_built_with_gpu_support():  # XLA knows no other GPU
        needed.add("XLA_GPU_JIT")
    for op, devices in kernels.items():
        if not needed <= devices:
            raise RuntimeError(
                f"{op} has kernels for {', '.join(sorted(devices))}, but none for "
                f"{', '.join(sorted(needed - devices))}: {_REPORT}."
            )
    return {op: sorted(devices) for op, devices in kernels.items()}


def registered_kernels():
    """The devices for which each op of lrops has a kernel: name of the op -> such as {"CPU", "XLA_CPU_JIT"}."""
    import tensorflow as tf
    from tensorflow.core.framework import kernel_def_pb2

    class Buffer(ctypes.Structure):  # TF_Buffer
        _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]

    # TensorFlow's Python API has no function for this. Its C API has.
    framework, cc = (
        ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), f"libtensorflow_{name}.so.2")) for name in ("framework", "cc")
    )
    framework.TF_NewStatus.restype = ctypes.c_void_p
    cc.TF_GetAllRegisteredKernels.restype = ctypes.POINTER(Buffer)
    status = ctypes.c_void_p(framework.TF_NewStatus())
    buffer = cc.TF_GetAllRegisteredKernels(status)
    kernels = kernel_def_pb2.KernelList.FromString(ctypes.string_at(buffer.contents.data, buffer.contents.length))
    framework.TF_DeleteBuffer(buffer)
    framework.TF_DeleteStatus(status)
    found = {}
    for kernel in kernels.kernel:
        if kernel.op.startswith("Lrops>"):
            found.setdefault(kernel.op, set()).add(kernel.device_type)
    return found


def check_keras():
    """Keras, its backend, and whether it takes the schedules."""
    import keras

    backend = getattr(keras, "backend", None) and keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"Keras runs on {backend}, and lrops on TensorFlow: set KERAS_BACKEND=tensorflow before Keras is imported."
        )
    for schedule in _schedules().values():
        keras.optimizers.SGD(schedule)
    try:
        tf_keras = importlib.metadata.version("tf_keras")
    except importlib.metadata.PackageNotFoundError:
        tf_keras = None
    return {"version": keras.__version__, "backend": backend, "tf_keras": tf_keras}


def check_driver():
    """NVIDIA's driver, by the library that the CUDA kernel is launched through."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Note(f"no NVIDIA driver is installed ({error}). Only an NVIDIA GPU needs it.") from error
    version, release, count = ctypes.c_int(), ctypes.create_string_buffer(80), ctypes.c_int()
    code = (
        cuda.cuDriverGetVersion(ctypes.byref(version)) or cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    )
    if code:
        name = ctypes.c_char_p()
        cuda.cuGetErrorName(code, ctypes.byref(name))
        says = (name.value or b"error %d" % code).decode()
        raise Note(
            f"the NVIDIA driver is installed, but finds no GPU that it can use ({says}). If there is one, look at "
            "`nvidia-smi`, CUDA_VISIBLE_DEVICES, and whether the container was started with access to it."
        )
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        known = not (nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(release, len(release)))
    except OSError:  # containers may leave it out
        known = False
    return {
        "release": release.value.decode() if known else None,
        "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
        "gpus": count.value,
    }


def check_gpu():
    """The GPUs that TensorFlow sees, and whether the CUDA kernel covers them."""
    import tensorflow as tf

    from lrops import _loader, _native

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        installed = " ".join(sorted(_loader.distributions())) or "this TensorFlow"
        wanted = f"'tensorflow[and-cuda]=={'.'.join(tf.__version__.split('.')[:2])}.*'"
        if tf.test.is_built_with_cuda():
            cure = f"It needs the driver above and the libraries of CUDA: run `pip install {wanted}`"
        else:
            cure = f"It is built without CUDA: to use a GPU, uninstall {installed}, then run `pip install {wanted}`"
        raise Note(f"TensorFlow sees no GPU. {cure}.")
    cuda = _native.build_info["cuda"]
    least = int(re.search(r"compute_(\d+)", cuda)[1])  # as tools/ptx.py writes it
    cards = []
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)  # of a card that is not NVIDIA's it may be empty
        card, capability = details.get("device_name", "an unnamed GPU"), details.get("compute_capability")
        if tf.test.is_built_with_rocm():
            raise Note(f"{card} is driven by ROCm, for which lrops has no kernel: evaluations run on the CPU.")
        cards.append(f"{card} (compute {capability[0]}.{capability[1]})" if capability else f"{card} (not NVIDIA's)")
        if capability and 10 * capability[0] + capability[1] < least:
            raise RuntimeError(
                f"{cards[-1]} is older than the CUDA kernel allows ({cuda}). Train on the CPU or under XLA."
            )
    return {"cards": cards, "covered_by": cuda}


def _schedules():
    from lrops import schedules

    return {
        name: getattr(schedules, schedule)(**dataclasses.asdict(curve)) for name, (schedule, curve) in _CURVES.items()
    }


def _on(device, jit_compile):
    """A check that evaluates every curve on a device: eagerly (None), in a tf.function (False) or under XLA (True)."""

    def check():
        import tensorflow as tf

        schedules = _schedules()

        def evaluate(step):
            return {name: schedule(step) for name, schedule in schedules.items()}

        # One function for all curves: most of the time is compilation.
        call = evaluate if jit_compile is None else tf.function(evaluate, jit_compile=jit_compile, autograph=False)
        with tf.device(device):
            rates = call(tf.constant(_STEPS))
        for name, rate in rates.items():
            if jit_compile is None and not rate.device.endswith(device):
                raise RuntimeError(
                    f"TensorFlow was told to evaluate {name} on {device}, and did it on {rate.device}: {_REPORT}."
                )
        return _compare({name: rate.numpy() for name, rate in rates.items()})

    return check


# Name, function, and what must have succeeded before.
_CHECKS = {
    "Python": (check_python, ()),
    "lrops": (check_module, ()),
    "TensorFlow": (check_tensorflow, ("lrops",)),
    "op": (check_op, ("TensorFlow",)),
    "kernels": (check_kernels, ("op",)),
    "Keras": (check_keras, ("op",)),
    "driver": (check_driver, ()),
    "GPU": (check_gpu, ("op",)),
    "host function": (check_host, ("lrops",)),
    "CPU, eager": (_on("CPU:0", None), ("op",)),
    "CPU, tf.function": (_on("CPU:0", False), ("op",)),
    "CPU, XLA": (_on("CPU:0", True), ("op",)),
    "GPU, eager": (_on("GPU:0", None), ("GPU",)),
    "GPU, tf.function": (_on("GPU:0", False), ("GPU",)),
    "GPU, XLA": (_on("GPU:0", True), ("GPU",)),
}


def _compare(found):
    """Compares the rates of each curve, by its name, with the reference. Returns the facts of the finding."""
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
    return {"curves": len(found), "rates": sum(map(len, found.values())), "bits": "of the reference"}


def _examined():
    """The findings of this process, one after the other."""
    reached = set()
    for name, (check, needs) in _CHECKS.items():
        missing = [need for need in needs if need not in reached]
        facts = {}
        try:
            if missing:
                status, says = _SKIPPED, f"needs {missing[0]}"
            else:
                facts = check()
                status, says = _OK, _sentence(facts)
        except Note as note:
            status, says, facts = _NOTE, str(note), note.facts
        except Exception as error:  # any error is a finding
            status, says = _FAILED, str(error) or type(error).__name__
        if status == _OK or facts:
            reached.add(name)
        yield _finding(name, status, says, facts)


def examine_here():
    """Runs the checks in this process and prints each as a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what TensorFlow or another library prints must not be taken for an answer
    for finding in _examined():
        print(json.dumps(finding), file=answers, flush=True)


def _finding(name, status, says, facts=()):
    return {"name": name, "status": status, "says": says, "facts": dict(facts)}


def _sentence(facts):
    if "bits" in facts:
        return f"{facts['rates']} rates of {facts['curves']} curves equal the reference, bit for bit"
    names = {key: key if key == "tf_keras" else key.replace("_", " ") for key in facts}
    return "; ".join(f"{names[key]} {_text(value)}" for key, value in facts.items())


def _text(value):
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else value


def examine():
    """The findings, one after the other, as the dicts that `_finding` makes."""
    # A frozen program and one that embeds Python have no interpreter to start.
    if os.environ.get(_STARTED) or getattr(sys, "frozen", False) or not sys.executable:
        yield from _examined()
        return
    # The child must import what this process imports, however this one was started. PYTHONSAFEPATH (3.11 and newer)
    # keeps Python from putting the working directory first. TensorFlow takes file names in UTF-8 only, whatever the
    # terminal's encoding is.
    folders = os.pathsep.join(folder for folder in sys.path if isinstance(folder, str))  # Python skips the others too
    path = {"PYTHONPATH": folders, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}
    # If a training runs on the same GPU, the child must not take the rest of its memory.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    environment = quiet | os.environ | path | {_STARTED: "1"}
    # The same function gives multiprocessing the flags of its processes.
    flags = subprocess._args_from_interpreter_flags()
    command = [sys.executable, *flags, "-m", "lrops", "doctor", "--here"]
    left = list(_CHECKS)
    # Standard error goes to a file: a pipe that nobody reads would stop the process once it is full.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        ) as process:
            for line in process.stdout:
                with contextlib.suppress(ValueError):  # from a line that something else printed, such as sitecustomize
                    finding = json.loads(line)
                    if left and isinstance(finding, dict) and finding.get("name") == left[0]:
                        yield finding
                        del left[0]
        if not left and not process.returncode:
            return
        errors.seek(0)
        last = errors.read().strip().rpartition("\n")[2]
    broken, *rest = left or ["end"]
    ended = f"by signal {-process.returncode}" if process.returncode < 0 else f"with code {process.returncode}"
    last = f" ({last})" if last else ""
    yield _finding(broken, _FAILED, f"this check ended the process {ended}{last}: {_REPORT}.")
    for name in rest:
        yield _finding(name, _SKIPPED, f"needs {broken}")


def say(text):
    """Prints a line. A character that the terminal's encoding lacks is printed as an escape sequence."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def main(as_json=False):
    """Prints the findings. Returns the exit code: 1 if a check failed."""
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            say(f"{finding['status']:<8} {finding['name']:<17} {finding['says']}")
    failed = [finding["name"] for finding in findings if finding["status"] == _FAILED]
    if as_json:
        checks = {finding.pop("name"): finding for finding in findings}
        print(json.dumps({"healthy": not failed, "checks": checks}, indent=1))
    elif failed:
        print(f"\n{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}.")
    else:
        print("\nNothing is wrong.")
    return 1 if failed else 0
