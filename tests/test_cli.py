"""The command line: what the doctor finds in a broken installation, the table, the picture and the benchmark."""

import ast
import ctypes
import json
import os
import re
import signal
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from conftest import FOLDER, SEES_GPU, Curve, fake_tensorflow
from processes import run_python

from lrops import _loader, _native, benchmark, curves, doctor, reference

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
PEAK = ["--initial-learning-rate", "1e-3", "--warmup-steps", "1000"]
CURVE = [*PEAK, "--total-steps", "100000"]
# What the doctor says of a path that is good.
GOOD = "50 rates of 5 curves equal the reference, bit for bit"


def lrops(*arguments, folder, package=None):
    """The command line, of the installed package or of a copy."""
    path = {"PYTHONPATH": str(package.parent)} if package else {}
    needs = {"TESTS_WITHOUT": ""} if "plot" in arguments else {}  # matplotlib
    return run_python("-m", "lrops", *arguments, folder=folder, **path, **needs)


def findings(result):
    report = json.loads(result.stdout)
    assert report["healthy"] == (result.returncode == 0)
    return {name: (check["status"], check["says"]) for name, check in report["checks"].items()}


def test_a_healthy_installation(tmp_path):
    result = lrops("doctor", folder=tmp_path)
    assert result.returncode == 0 and result.stdout.endswith("Nothing is wrong.\n"), result
    assert not result.stderr
    lines = [line.split()[0] for line in result.stdout.splitlines()[:-2]]
    assert lines.count("ok") >= 9 and "failed" not in lines
    assert result.stdout.count(GOOD) >= 4


def test_the_same_as_json(tmp_path):
    result = lrops("doctor", "--json", folder=tmp_path)
    found = findings(result)
    for name in ("lrops", "op", "kernels", "Keras", "host function", "CPU, eager", "CPU, tf.function", "CPU, XLA"):
        assert found[name][0] == "ok", name
    for name in ("GPU, eager", "GPU, tf.function", "GPU, XLA"):
        assert found[name] == (("ok", GOOD) if SEES_GPU else ("skipped", "needs GPU"))
    facts = {name: check["facts"] for name, check in json.loads(result.stdout)["checks"].items()}
    assert facts["lrops"].items() >= _loader.build_info.items()
    assert facts["op"]["folder"] == os.path.join(facts["lrops"]["folder"], FOLDER)
    assert {"CPU", "XLA_CPU_JIT"} <= set(facts["kernels"]["Lrops>WarmupDecay"])
    assert facts["TensorFlow"]["version"] == tf.__version__
    assert facts["CPU, XLA"]["rates"] == 50


def test_no_tensorflow(package):
    (package.parent / "tensorflow.py").write_text("raise ModuleNotFoundError('no', name='tensorflow')\n")
    result = lrops("doctor", "--json", folder=package.parent, package=package)
    found = findings(result)
    assert result.returncode == 1
    assert found["TensorFlow"][0] == "failed" and "pip install" in found["TensorFlow"][1]
    assert found["host function"][0] == "ok" and found["op"] == ("skipped", "needs TensorFlow")
    said = lrops("doctor", folder=package.parent, package=package).stdout
    assert said.endswith("1 of 15 checks failed: TensorFlow.\n")


def test_another_tensorflow(package):
    fake_tensorflow(package, "2.99.0")
    found = findings(lrops("doctor", "--json", folder=package.parent, package=package))
    assert found["TensorFlow"][0] == "failed" and "found TensorFlow 2.99.0" in found["TensorFlow"][1]


@pytest.mark.parametrize(("name", "check"), [("_native*.so", "lrops"), (f"{FOLDER}/_lrops_xla.so", "op")])
def test_a_library_that_was_cut_short(package, name, check):
    (path,) = package.glob(name)
    os.truncate(path, 4096)
    result = lrops("doctor", "--json", folder=package.parent, package=package)
    assert result.returncode == 1
    status, says = findings(result)[check]
    assert status == "failed" and "cut short" in says and "--force-reinstall" in says


def test_a_process_that_dies_is_a_finding(package):
    (package.parent / "tensorflow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    result = lrops("doctor", "--json", folder=package.parent, package=package)
    assert result.returncode == 1
    found = findings(result)
    status, says = found["TensorFlow"]
    assert status == "failed" and says.startswith(f"this check ended the process by signal {signal.SIGSEGV.value}: ")
    assert found["op"] == found["GPU, XLA"] == ("skipped", "needs TensorFlow")


def test_what_libraries_print_is_no_finding(package):
    """More than a pipe holds, to either stream, and a line that is JSON."""
    fake_tensorflow(package, "2.99.0")
    with (package.parent / "tensorflow" / "__init__.py").open("a") as fake:
        fake.write("import os, sys\nprint(1)\nfor stream in sys.stdout, sys.stderr:\n    stream.write('x' * 10**6)\n")
        fake.write("os.system('echo 2')\n")
    result = lrops("doctor", "--json", folder=package.parent, package=package)
    assert "found TensorFlow 2.99.0" in findings(result)["TensorFlow"][1]


# With -OO, which removes docstrings, some versions of Keras cannot be imported.
STARTS = {
    "-c": ["-c", "from lrops import doctor; doctor.main()"],
    "runpy": ["-c", "import runpy, sys; sys.argv = ['x', 'doctor']; runpy.run_module('lrops', run_name='__main__')"],
    "with flags": ["-O", "-B", "-W", "ignore", "-X", "utf8", "-m", "lrops", "doctor"],
}


@pytest.mark.parametrize("start", STARTS)
def test_the_doctor_starts_one_process_however_it_is_started(tmp_path, start):
    """The audit hook counts, and another process that came from there would run it again."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "print('a line that is no finding')\n"
        "def say(event, arguments):\n"
        "    if event == 'subprocess.Popen' and 'doctor' in map(str, arguments[1]):\n"
        "        open('started', 'a').write(repr(arguments[1]) + '\\n')\n"
        "sys.addaudithook(say)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = run_python(*STARTS[start], folder=tmp_path, PYTHONPATH=path)
    assert result.returncode == 0 and result.stdout.endswith("Nothing is wrong.\n"), result
    (command,) = (tmp_path / "started").read_text().splitlines()
    command = ast.literal_eval(command)
    assert command[0] == sys.executable and command[-4:] == ["-m", "lrops", "doctor", "--here"]
    flags = command[1:-4]
    assert set(flags) >= ({"-O", "-B", "-Wignore", "utf8"} if start == "with flags" else set())


@pytest.mark.parametrize("environment", ["frozen", "embedded", "child"])
def test_the_doctor_where_no_interpreter_can_be_started(tmp_path, environment):
    script = {
        "frozen": "import sys; sys.frozen = True\n",
        "embedded": "import sys; sys.executable = ''\n",
        "child": "import os; os.environ['LROPS_DOCTOR'] = '1'\n",
    }[environment]
    script += "import sys\nfrom lrops import doctor\ndoctor.subprocess = None\nsys.exit(doctor.main())\n"
    result = run_python("-c", script, folder=tmp_path)
    assert result.returncode == 0 and result.stdout.endswith("Nothing is wrong.\n"), result


def test_the_doctor_examines_what_this_process_imports(package, tmp_path):
    """The program may have changed the path, which a new process would not know."""
    fake_tensorflow(package, "2.99.0")
    (tmp_path / "elsewhere").mkdir()
    script = (
        f"import sys, lrops.__main__\nsys.path.insert(0, {str(tmp_path)!r})\nsys.argv = ['x', 'doctor', '--json']\n"
    )
    result = run_python("-c", script + "lrops.__main__.main()", folder=tmp_path / "elsewhere")
    assert "found TensorFlow 2.99.0" in findings(result)["TensorFlow"][1], result


def test_a_terminal_that_has_no_such_letters(package, tmp_path):
    folder = tmp_path / "größer als 素晴らしい"
    folder.mkdir()
    package.rename(folder / "lrops")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = run_python("-m", "lrops", "doctor", folder=folder, **ascii_only)
    assert result.returncode == 0 and result.stdout.endswith("Nothing is wrong.\n"), result
    result = run_python("-m", "lrops", "doctor", folder=folder, PYTHONIOENCODING="ascii")
    assert result.returncode == 0 and "gr\\xf6\\xdfer" in result.stdout, result
    plot = ["plot", *CURVE, "--output", "größe.png"]
    result = run_python("-m", "lrops", *plot, folder=folder, PYTHONIOENCODING="ascii", TESTS_WITHOUT="")
    assert result.returncode == 0 and result.stdout == "gr\\xf6\\xdfe.png\n", result


def install_beside(package, **versions):
    """Says of a TensorFlow in the folder of the package that these distributions own it."""
    for name, version in versions.items():
        information = package.parent / f"{name}-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (information / "RECORD").write_text("tensorflow/__init__.py,,\n")


@pytest.mark.parametrize("second", ["tensorflow", "tensorflow_rocm", "tf_nightly"])
def test_two_distributions_of_one_tensorflow_are_a_note(package, second):
    """As `pip install tensorflow-cpu tf_keras` makes them."""
    installed = next(iter(_loader.distributions().values()), tf.__version__)
    install_beside(package, **{second: installed})
    result = lrops("doctor", "--json", folder=package.parent, package=package)
    found = findings(result)
    status, says = found["TensorFlow"]
    assert result.returncode == 0 and status == "note", result
    assert f"{second.replace('_', '-')} {installed}" in says and "tensorflow" in says
    assert all(found[name][0] == "ok" for name in ("op", "kernels", "Keras", "CPU, eager", "CPU, XLA"))
    assert json.loads(result.stdout)["checks"]["TensorFlow"]["facts"]["version"] == tf.__version__


def test_two_distributions_of_two_tensorflows_are_a_failure(package):
    install_beside(package, tensorflow_rocm="2.3.4")
    found = findings(lrops("doctor", "--json", folder=package.parent, package=package))
    status, says = found["TensorFlow"]
    assert status == "failed" and "more than one TensorFlow is installed" in says
    assert "tensorflow-rocm 2.3.4" in says and re.search("pip uninstall -y .*tensorflow-rocm", says)
    assert found["op"] == ("skipped", "needs TensorFlow")


def test_two_tensorflows_whose_mixed_files_cannot_be_imported(package):
    install_beside(package, tensorflow="2.21.0", tensorflow_cpu="2.20.0")
    fake_tensorflow(package, "2.20.0")
    (package.parent / "tensorflow" / "__init__.py").write_text("raise ImportError('undefined symbol: PyInit')")
    status, says = findings(lrops("doctor", "--json", folder=package.parent, package=package))["TensorFlow"]
    assert status == "failed" and "(tensorflow 2.21.0, tensorflow-cpu 2.20.0), and their files are mixed" in says


def test_a_tensorflow_that_another_one_hides_is_not_counted(package, tmp_path):
    install_beside(package, tensorflow_rocm="2.3.4")
    (package.parent / "tensorflow").mkdir()  # without __init__.py: Python goes on to the other
    result = lrops("doctor", "--json", folder=tmp_path, package=package)
    assert findings(result)["TensorFlow"][0] == "ok", result


def test_a_keras_without_tensorflow(tmp_path):
    result = run_python("-m", "lrops", "doctor", "--json", folder=tmp_path, KERAS_BACKEND="numpy", TESTS_WITHOUT="")
    assert result.returncode == 1
    status, says = findings(result)["Keras"]
    assert status == "failed" and "KERAS_BACKEND=tensorflow" in says


class FakeCuda:
    """libcuda.so.1 and libnvidia-ml.so.1, as far as the doctor asks; `answer` is what cuInit returns."""

    def __init__(self, answer=0):
        self.cuInit = lambda flags: answer
        self.nvmlInit_v2 = lambda: 0

    def cuDriverGetVersion(self, version):
        version._obj.value = 12040
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = 2
        return 0

    def cuGetErrorName(self, code, name):
        name._obj.value = b"CUDA_ERROR_NO_DEVICE" if code == 100 else None
        return 0

    def nvmlSystemGetDriverVersion(self, version, size):
        version.value = b"550.54.15"
        return 0


def test_the_driver(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeCuda())
    assert doctor.check_driver() == {"release": "550.54.15", "cuda": "12.4", "gpus": 2}
    for answer, said in ((100, "CUDA_ERROR_NO_DEVICE"), (7, "error 7")):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, answer=answer: FakeCuda(answer))
        with pytest.raises(doctor.Note, match=said):
            doctor.check_driver()


@pytest.mark.parametrize(
    ("capability", "cuda", "said"),
    [
        ((9, 0), "PTX 8.0 for compute_50 and newer, driver >= 525", None),
        ((5, 0), "PTX 8.0 for compute_50 and newer, driver >= 525", None),
        ((3, 7), "PTX 8.0 for compute_50 and newer, driver >= 525", r"Some card \(compute 3.7\) is older"),
    ],
)
def test_whether_a_card_is_covered(monkeypatch, capability, cuda, said):
    details = {"device_name": "Some card", "compute_capability": capability}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    monkeypatch.setitem(_loader.build_info, "cuda", cuda)
    if said:
        with pytest.raises(RuntimeError, match=said):
            doctor.check_gpu()
    else:
        assert doctor.check_gpu()["cards"] == [f"Some card (compute {capability[0]}.{capability[1]})"]


@pytest.mark.parametrize("details", [{}, {"device_name": "Some card"}])
def test_a_gpu_that_is_not_nvidias(monkeypatch, details):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    card = details.get("device_name", "an unnamed GPU")
    assert doctor.check_gpu()["cards"] == [f"{card} (not NVIDIA's)"]
    monkeypatch.setattr(tf.test, "is_built_with_rocm", lambda: True)
    with pytest.raises(doctor.Note, match=f"{card} is driven by ROCm.*evaluations run on the CPU"):
        doctor.check_gpu()


def test_wrong_bits_and_a_missing_kernel_are_findings(monkeypatch):
    monkeypatch.setattr(_native, "warmup_decay", lambda steps, **curve: np.zeros(len(steps), np.float32))
    with pytest.raises(
        RuntimeError, match="rates of cosine differ from the reference, the first at step 500: .*doctor --json"
    ):
        doctor.check_host()
    monkeypatch.setattr(doctor, "registered_kernels", lambda: {"Lrops>WarmupDecay": {"CPU", "GPU"}})
    with pytest.raises(RuntimeError, match="kernels for CPU, GPU, but none for XLA_CPU_JIT"):
        doctor.check_kernels()


def test_the_doctor_tries_every_op_and_decay():
    assert {f"Lrops>{schedule}" for schedule, _ in doctor._CURVES.values()} == set(doctor.registered_kernels())
    with pytest.raises(ValueError, match="decay must be") as refused:
        _native.warmup_decay(np.array(0), **Curve().arguments(decay="", dtype="float32"))
    allowed, _, _ = str(refused.value).partition("Received")
    assert {getattr(curve, "decay", None) for _, curve in doctor._CURVES.values()} - {None} == set(
        re.findall(r"'(\w+)'", allowed)
    )


@pytest.mark.parametrize("path", ["host function", "CPU, eager", "CPU, tf.function", "CPU, XLA"])
def test_a_path_tries_every_curve_and_compares_each(monkeypatch, path):
    compare, found = doctor._compare, {}
    monkeypatch.setattr(doctor, "_compare", found.update)
    doctor._CHECKS[path][0]()
    assert found.keys() == doctor._CURVES.keys()
    assert len({rates.tobytes() for rates in found.values()}) == 5
    assert compare(found) == {"curves": 5, "rates": 50, "bits": "of the reference"}
    for name, rates in found.items():
        wrong = rates.copy()
        wrong[5] = np.nextafter(wrong[5], np.float32(1))
        with pytest.raises(RuntimeError, match=f"1 of 10 rates of {name} differ from .* first at step 33333: "):
            compare(found | {name: wrong})


def test_the_table_needs_no_tensorflow(package):
    for module in ("tensorflow", "ml_dtypes"):  # the one brings the other
        (package.parent / f"{module}.py").write_text("raise ModuleNotFoundError\n")
    steps = [0, 1, 999, 54_321, 2**62]
    result = lrops(
        "table", *CURVE, "--alpha", "0.25", "--steps", *map(str, steps), folder=package.parent, package=package
    )
    assert result.returncode == 0, result.stderr
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["step", "learning", "rate"]
    rates = [np.float32(line.split()[-1]) for line in lines]
    curve = Curve(initial_learning_rate=1e-3, warmup_steps=1000, total_steps=100_000, alpha=0.25)
    np.testing.assert_array_equal(rates, reference.warmup_decay(steps, **curve.arguments()))


CURVES = {
    "cosine": {"total_steps": 5000, "dtype": "float64"},
    "linear": {"total_steps": 5000, "hold_steps": 100, "alpha": 0.0},
    "minus_sqrt": {"total_steps": 5000, "warmup_start": 0.25},
    "inverse_sqrt": {"timescale": 300, "hold_steps": 100, "start_step": -1},
    "restarts": {"first_decay_steps": 700, "cycles": 2, "t_mul": 1.5, "m_mul": 0.5},
}


@pytest.mark.parametrize("decay", CURVES)
def test_the_table_of_every_curve(tmp_path, decay):
    options = [text for name, value in CURVES[decay].items() for text in ("--" + name.replace("_", "-"), value)]
    steps = [0, 1, 999, 1050, 1701, 2000, 2**62]
    result = lrops("table", *PEAK, "--decay", decay, *options, "--steps", *steps, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    arguments = {"initial_learning_rate": 1e-3, "warmup_steps": 1000} | CURVES[decay]
    if decay in ("linear", "minus_sqrt"):
        arguments["decay"] = decay
    function = {"inverse_sqrt": "warmup_inverse_sqrt", "restarts": "warmup_cosine_restarts"}.get(decay, "warmup_decay")
    expected = getattr(reference, function)(steps, **arguments)
    rates = [expected.dtype.type(line.split()[-1]) for line in result.stdout.splitlines()[1:]]
    np.testing.assert_array_equal(rates, expected)


def test_the_help_says_which_curve_takes_an_option(tmp_path):
    said = " ".join(lrops("plot", "--help", folder=tmp_path).stdout.split())
    assert "--decay {cosine,linear,minus_sqrt,inverse_sqrt,restarts}" in said
    assert "hold included; required with cosine, linear, minus_sqrt --" in said
    assert "floor / peak (0.001); only with cosine, linear, minus_sqrt, restarts --" in said
    assert "warmup_steps if not given; only with inverse_sqrt --" in said
    assert "first rate / peak (0.0) --" in said


def test_the_table_shows_the_landmarks(tmp_path):
    result = lrops("table", *CURVE, "--hold-steps", "10", "--start-step", "-1", folder=tmp_path)
    lines = [line.split() for line in result.stdout.splitlines()[1:]]
    assert [(" ".join(words[:-2]), words[-2]) for words in lines] == [
        ("start", "-1"),
        ("middle of warmup", "499"),
        ("peak", "999"),
        ("end of hold", "1,009"),
        ("middle of decay", "50,504"),
        ("last before the floor", "99,998"),
        ("floor", "99,999"),
    ]


def test_a_landmark_past_int64_is_left_out(tmp_path):
    longest = ["--start-step", str(2**62), "--total-steps", str(2**62)]
    result = lrops("table", *CURVE, *longest, folder=tmp_path)
    assert result.stdout.splitlines()[-1].split() == ["last", "before", "the", "floor", f"{2**63 - 1:,}", "1e-06"], (
        result
    )


def test_the_plot_needs_no_tensorflow(package):
    (package.parent / "tensorflow.py").write_text("raise ImportError\n")
    path = package.parent / "rate.png"
    result = lrops("plot", *CURVE, "--output", path, folder=package.parent, package=package)
    assert result.returncode == 0 and str(path) in result.stdout, result.stderr
    assert matplotlib.image.imread(path).std() > 0.01


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["table", *CURVE, "--total-steps", "10"], 2, "error: total_steps counts warmup and hold"),
        (["table", *CURVE, "--dtype", "int8"], 2, "error: dtype must be"),
        (["table", *CURVE, "--steps", "0", str(2**63)], 2, f"--steps: must fit in 64 bits. Received: {2**63}"),
        (["table", *CURVE, "--warmup-steps", "1e999999"], 2, "--warmup-steps: must fit in 64 bits"),
        (
            ["table", *CURVE, "--warmup-steps", "1.5"],
            2,
            "lrops table: error: argument --warmup-steps: must be a whole number, such as 1000, 1_000 or 1e3. "
            "Received: 1.5. `python -m lrops table --help` lists the options.\n",
        ),
        (["table", *CURVE, "--warmup-steps", "nan"], 2, "must be a whole number"),
        (["table", *CURVE, "--alpha", "0,1"], 2, "--alpha: must be a number, such as 0.001 or 1e-3. Received: 0,1"),
        (["table", *CURVE, "--decay", "cosin"], 2, "invalid choice: 'cosin'"),
        (["plot", *PEAK, "--decay", "linear"], 2, "the following arguments are required: --total-steps"),
        (["table", *PEAK, "--decay", "restarts"], 2, "the following arguments are required: --first-decay-steps"),
        (["table", "--decay", "restarts"], 2, "are required: --initial-learning-rate, --warmup-steps"),
        (
            ["plot", *PEAK, "--decay", "inverse_sqrt", "--alpha", "0.1"],
            2,
            "error: --alpha works only with --decay cosine, linear, minus_sqrt, restarts: leave it out. "
            "Received: --decay inverse_sqrt --alpha 0.1",
        ),
        (["table", *CURVE, "--t-mul", "2"], 2, "Received: --decay cosine --t-mul 2.0"),
        (["table", *PEAK, "--decay", "inverse_sqrt", "--timescale", "0"], 2, "error: timescale must be at least 1"),
        (["plot", *CURVE, "--output", "no/such/folder.png"], 1, "No such file or directory"),
        (["plot", *CURVE, "--output", "rate.docx"], 2, "error: Format 'docx' is not supported"),
    ],
)
def test_what_is_refused(tmp_path, arguments, code, said):
    result = lrops(*arguments, folder=tmp_path)
    assert result.returncode == code and said in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1 and "usage" not in result.stderr


def test_whole_numbers_as_people_write_them(tmp_path):
    exact = 2**53 + 1  # no float64
    options = ["--warmup-steps", "1e3", "--total-steps", "100_000.0", "--steps", "0.5e3", "1_000", "-1e3", f"{exact}.0"]
    result = lrops("table", "--initial-learning-rate", "1e-3", *options, folder=tmp_path)
    steps = [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert steps == ["500", "1,000", "-1,000", f"{exact:,}"], result


def test_the_version_needs_no_tensorflow(package):
    (package.parent / "tensorflow.py").write_text("raise ModuleNotFoundError('no', name='tensorflow')\n")
    result = lrops("--version", folder=package.parent, package=package)
    facts = _loader.build_info
    assert result.stdout.startswith(f"lrops {facts['version']}, commit {facts['commit']}, with "), result
    assert result.stdout.endswith(f"{', '.join(_loader.supported_tensorflow())}\n")


@pytest.mark.parametrize("name", ["lrops", "train"])
def test_the_console_script(package, name):
    """The command `lrops` starts without TensorFlow; a program of another name gets all of lrops, or the cure."""
    (package.parent / "tensorflow.py").write_text("raise ModuleNotFoundError('no', name='tensorflow')\n")
    declared = re.search(r'\[project.scripts\]\nlrops = "(.+):(.+)"', PYPROJECT.read_text("utf-8")).groups()
    assert declared == ("lrops.__main__", "main")
    (package.parent / "bin").mkdir()
    script = package.parent / "bin" / name  # as pip writes it
    script.write_text("import sys\nfrom lrops.__main__ import main\nsys.exit(main())\n")
    result = run_python(script, "doctor", folder=package.parent, PYTHONPATH=str(package.parent))
    assert result.returncode == 1
    if name == "lrops":
        assert "failed   TensorFlow " in result.stdout and result.stdout.endswith("checks failed: TensorFlow.\n"), (
            result
        )
    else:
        assert "ImportError: lrops needs TensorFlow" in result.stderr, result


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("matplotlib", ["plot", *CURVE], "pip install matplotlib"),
        ("ml_dtypes", ["table", *CURVE, "--dtype", "bfloat16"], "pip install ml_dtypes"),
        ("tensorflow", ["bench"], "lrops needs TensorFlow, and none is installed"),
    ],
)
def test_what_is_not_installed(package, module, arguments, said):
    (package.parent / f"{module}.py").write_text(f"raise ModuleNotFoundError('no', name={module!r})\n")
    result = lrops(*arguments, folder=package.parent, package=package)
    assert result.returncode == 1 and said in result.stderr and "Traceback" not in result.stderr, result.stderr


@pytest.mark.parametrize("command", ["table", "plot"])
def test_a_module_that_was_cut_short(package, command):
    (path,) = package.glob("_native*.so")
    os.truncate(path, 4096)
    result = lrops(command, *CURVE, folder=package.parent, package=package)
    assert result.returncode == 1 and result.stderr.startswith(f"lrops cannot load its library {path}"), result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "1"], "argument --rounds: must be at least 2. Received: 1"),
        (["--variables", "0"], "argument --variables: must be at least 1. Received: 0"),
        (["--elements", "-1"], "argument --elements: must be at least 1. Received: -1"),
        (["--optimizer", "Adamw"], "--optimizer must name a class of keras.optimizers. Received: Adamw"),
    ],
)
def test_what_the_benchmark_refuses(tmp_path, arguments, said):
    result = lrops("bench", *arguments, folder=tmp_path)
    assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("decay", "others"),
    [
        (
            "cosine",
            ["Keras CosineDecay, warmup", "Keras PolynomialDecay + CosineDecay", "hand-written, tf.where"],
        ),
        ("linear", ["Keras PolynomialDecay, twice", "hand-written, tf.where"]),
        ("minus_sqrt", ["hand-written, tf.where"]),
        ("inverse_sqrt", ["hand-written, tf.where"]),
        ("restarts", ["Keras PolynomialDecay + CosineDecayRestarts"]),
    ],
)
def test_the_contenders_of_a_benchmark_are_one_curve(decay, others):
    rates = benchmark.contenders(decay=decay)
    assert list(rates) == ["constant", "constant, again", "lrops", *others]
    config = rates["lrops"].get_config()
    assert curves.decay_of(config) == decay
    for step in (0, 500, 1000, 20_000, 60_000, 99_000, 100_000, 150_000):
        expected = curves.rates(config, np.array(step))
        for name in others:
            found = tf.function(rates[name])(tf.constant(step, tf.int64))
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9, err_msg=f"{name}, {step}")


def test_the_benchmark_runs(tmp_path):
    small = ["--variables", "2", "--rounds", "2", "--mode", "graph", "--decay", "linear"]
    result = lrops("bench", *small, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "AdamW, 2 variables of 256 numbers, linear, graph" in result.stdout
    rows = [line.split("|")[1:4] for line in result.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == list(benchmark.contenders(decay="linear"))
    assert all(float(row[1]) > 0 for row in rows)
    assert "retracing" not in result.stderr


@pytest.mark.parametrize(
    ("again", "lrops", "keras", "said"),
    [
        (1.02, 0.95, 1.46, "Differences below 2 % are noise"),
        (1.00, 1.005, 0.995, "No difference: all step times agree within the noise, 1 %"),
        (0.93, 1.06, 0.96, "Too noisy to compare: the step with the constant rate alone varies by 7 %"),
    ],
)
def test_what_a_comparison_is_worth(again, lrops, keras, said):
    ratios = {"constant": 1.0, "constant, again": again, "lrops": lrops, "Keras": keras}
    rows = {name: {"us": 1000, "spread_us": 5, "ratio": ratio} for name, ratio in ratios.items()}
    assert benchmark.noise(rows).startswith(said)


def test_only_the_command_itself_defers_loading(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("import lrops\nprint(lrops.WarmupCosineDecay.__name__)\n")
    (tmp_path / "training" / "__main__.py").write_text("")
    result = run_python("-m", "training", "--project", "lrops", folder=tmp_path)
    assert result.stdout == "WarmupCosineDecay\n", result.stderr


@pytest.mark.parametrize("flag", ["-O", "-OO"])  # without docstrings
def test_help_without_a_command(tmp_path, flag):
    result = run_python(flag, "-m", "lrops", folder=tmp_path)
    assert result.returncode == 0 and all(word in result.stdout for word in ("doctor", "table", "plot", "bench"))
