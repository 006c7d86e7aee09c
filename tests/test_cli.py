"""The command line: what the doctor finds in a broken installation, the table, the picture and the benchmark."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from conftest import FOLDER, SEES_GPU, Curve, Decay, InverseSqrt, Restarts, fake_tensorflow, named
from processes import ENVIRONMENT, run_python, run_snippet
from pyproject import PROJECT

import lrops_command
from lrops import __main__, _loader, _native, benchmark, curves, doctor, load_ops, reference

PEAK = ["--initial-learning-rate", "1e-3", "--warmup-steps", "1000"]
CURVE = [*PEAK, "--total-steps", "100000"]
# What the doctor says of a path that is good.
GOOD = "rates 50 of 5 curves equal the reference, bit for bit"


def python(package, *arguments, **environment):
    """Runs Python so that it imports the package and what lies next to it."""
    return run_python(*arguments, folder=package.parent, PYTHONPATH=str(package.parent), **environment)


def lrops(package, *arguments, **environment):
    """The command line in a process, of a copy of the package."""
    return python(package, "-m", "lrops", *arguments, **environment)


def without(package, *modules):
    """Hides modules from whoever imports this copy of the package."""
    for module in modules:
        (package.parent / f"{module}.py").write_text(f"raise ModuleNotFoundError('no', name={module!r})\n")


@pytest.fixture
def here(monkeypatch, capsys):
    """The command line in this process: a function from arguments to exit code, output and errors."""

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["lrops", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            __main__.main()
        said, code = capsys.readouterr(), end.value.code
        return (1, said.out, f"{code}\n") if isinstance(code, str) else (code or 0, said.out, said.err)

    return main


def findings(result):
    report = json.loads(result.stdout)
    assert report["healthy"] == (result.returncode == 0)
    return {name: (check["status"], check["says"]) for name, check in report["checks"].items()}


def examine(package):
    return findings(lrops(package, "doctor", "--json"))


def add_to_tensorflow(package, code):
    with (package.parent / "tensorflow" / "__init__.py").open("a") as fake:
        fake.write(code)


def test_a_healthy_installation(package, tmp_path):
    """In a folder and a terminal where letters have to be right."""
    package = shutil.move(package, tmp_path / named("größer als 素晴らしい") / "lrops")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = lrops(Path(package), "doctor", "--json", **ascii_only)
    found = findings(result)
    assert result.returncode == 0 and all(status != "failed" for status, _ in found.values()), result
    for name in ("host function", "CPU, eager", "CPU, tf.function", "CPU, XLA"):
        assert found[name] == ("ok", GOOD)
    for name in ("GPU, eager", "GPU, tf.function", "GPU, XLA"):
        assert found[name] == (("ok", GOOD) if SEES_GPU else ("skipped", "needs GPU"))
    facts = {name: check["facts"] for name, check in json.loads(result.stdout)["checks"].items()}
    assert facts["lrops"].items() >= _loader.build_info.items()
    assert facts["op"]["library"] == os.path.join(facts["lrops"]["folder"], FOLDER, "_lrops_ops.so")
    assert facts["TensorFlow"]["version"] == tf.__version__


@pytest.mark.parametrize(("name", "check"), [("_native*.so", "lrops"), (f"{FOLDER}/_lrops_xla.so", "op")])
def test_what_cannot_be_loaded(package, name, check):
    fake_tensorflow(package, tf.__version__)
    add_to_tensorflow(package, "class test:\n    is_built_with_cuda = bool\n")
    os.truncate(*package.glob(name), 4096)
    status, says = examine(package)[check]
    assert status == "failed" and "--force-reinstall" in says and "the file is damaged" in says


def test_a_process_that_dies_is_a_finding(package):
    dies = "import os, sys\nprint('its last word', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 11)\n"
    (package.parent / "tensorflow.py").write_text(dies)
    found = examine(package)
    status, says = found["TensorFlow"]
    assert status == "failed" and says.startswith("this check ended the process with code -11 (its last word): ")
    assert found["op"] == found["GPU, XLA"] == ("skipped", "needs TensorFlow")


@pytest.mark.parametrize("flags", [[], ["-OO", "-B", "-W", "ignore", "-X", "utf8"]])
def test_no_tensorflow(package, flags):
    """The doctor starts one process with the same flags. An audit hook counts, in that process too."""
    without(package, "tensorflow")
    (package.parent / "sitecustomize.py").write_text(
        "import sys\n"
        "def say(event, arguments):\n"
        "    if event == 'subprocess.Popen' and 'doctor' in map(str, arguments[1]):\n"
        "        open('started', 'a').write(repr(arguments[1]) + '\\n')\n"
        "sys.addaudithook(say)\n"
    )
    result = python(package, *flags, "-m", "lrops", "doctor", PYTHONIOENCODING="ascii")
    assert result.returncode == 1 and result.stdout.endswith("1 of 13 checks failed: TensorFlow.\n"), result
    lines = {line[9:26].strip(): (line[:8].strip(), line[27:]) for line in result.stdout.splitlines()[:-2]}
    status, says = lines["TensorFlow"]
    assert status == "failed" and says.startswith("lrops needs TensorFlow, and none is installed: run `pip install")
    assert lines["host function"] == ("ok", GOOD) and lines["op"] == ("skipped", "needs TensorFlow")
    (command,) = map(ast.literal_eval, (package.parent / "started").read_text().splitlines())
    assert command[0] == sys.executable and command[-4:] == ["-m", "lrops", "doctor", "--here"]
    assert not flags or {"-OO", "-B", "-Wignore", "utf8"} <= set(command)


@pytest.mark.parametrize("where", ["sys.frozen = True", "sys.executable = ''", "os.environ['LROPS_DOCTOR'] = '1'"])
def test_the_doctor_where_no_interpreter_can_be_started(tmp_path, where):
    script = f"import os, sys; {where}\nfrom lrops import doctor\ndoctor.subprocess = None\n"
    script += "doctor._CHECKS = {'Python': doctor._CHECKS['Python']}\nsys.exit(doctor.main())\n"
    result = run_snippet(script, folder=tmp_path)
    assert result.returncode == 0 and result.stdout.endswith("Nothing is wrong.\n"), result


def test_the_doctor_examines_what_this_process_imports_whatever_that_prints(package):
    """The program may have changed the path. TensorFlow prints a line that is JSON, and more than a pipe holds."""
    fake_tensorflow(package, "2.99.0")
    add_to_tensorflow(package, "import os, sys\nprint(1)\nos.system('echo 2')\n")
    add_to_tensorflow(package, "for stream in sys.stdout, sys.stderr:\n    stream.write('x' * 10**6)\n")
    script = f"""
import runpy, sys, lrops
sys.path.insert(0, {str(package.parent)!r})
sys.argv = ["x", "doctor", "--json"]
runpy.run_module("lrops", run_name="__main__")
"""
    status, says = findings(run_snippet(script, folder="/"))["TensorFlow"]
    assert status == "failed" and "found TensorFlow 2.99.0" in says and "--force-reinstall" in says


def install_next_to(package, **versions):
    """Says of a TensorFlow in the folder of the package that these distributions own it."""
    for name, version in versions.items():
        information = package.parent / f"{name}-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (information / "RECORD").write_text("tensorflow/__init__.py,,\n")


def test_two_tensorflows_in_one_folder(package):
    install_next_to(package, tensorflow=tf.__version__, tensorflow_cpu="2.3.4")
    fake_tensorflow(package, tf.__version__)
    add_to_tensorflow(package, "raise ImportError('undefined symbol: PyInit')")
    status, says = examine(package)["TensorFlow"]
    assert status == "failed" and f"(tensorflow {tf.__version__}, tensorflow-cpu 2.3.4)" in says
    assert "their files are mixed: run `pip uninstall -y tensorflow tensorflow-cpu`" in says


def test_the_distributions_of_a_tensorflow(package, monkeypatch):
    """Two of one version work, as `pip install tensorflow-cpu tf_keras` makes them. A hidden one is not counted."""
    own = _loader.distributions()
    assert all(importlib.metadata.version(name) == version for name, version in own.items())
    monkeypatch.syspath_prepend(str(package.parent))
    install_next_to(package, tf_nightly="2.3.4", tensorflow_rocm="2.3.4")
    (package.parent / "tensorflow").mkdir()  # without __init__.py: Python goes on to the other
    assert _loader.distributions() == own
    (package.parent / "tensorflow" / "__init__.py").touch()
    assert _loader.distributions() == {"tf-nightly": "2.3.4", "tensorflow-rocm": "2.3.4"}
    monkeypatch.setattr(_loader, "distributions", lambda: {"tensorflow": "2.3.4", "tensorflow-cpu": "2.3.4"})
    assert doctor.check_tensorflow()["installed"] == "tensorflow 2.3.4, tensorflow-cpu 2.3.4"


def test_which_keras_is_installed(monkeypatch):
    assert doctor.check_keras()["version"] == keras.__version__
    monkeypatch.setitem(_loader.build_info, "keras", "3.0, 3.8, 3.15")
    for version, tried in {"3.0.5": True, "3.9.2": True, "3.15.1": True, "2.15.0": False, "3.16.0": False}.items():
        monkeypatch.setattr(keras, "__version__", version)
        if tried:
            assert doctor.check_keras() == {"version": version, "backend": "tensorflow"}
            continue
        with pytest.raises(doctor.Note, match=f"Keras {version} .* never tried: .* with Keras 3.0 to 3.15"):
            doctor.check_keras()
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(ImportError, match="runs on numpy.* set KERAS_BACKEND=tensorflow before"):
        doctor.check_keras()


def test_where_tensorflow_sees_no_gpu_of_nvidia(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(doctor.Note, match=r"sees no GPU.*`pip install 'tensorflow\[and-cuda\]==2\.\d+\.\*'`"):
        doctor.check_gpu()
    monkeypatch.setattr(tf.test, "is_built_with_rocm", lambda: True)
    with pytest.raises(doctor.Note, match="for ROCm.*evaluations run on the CPU"):
        doctor.check_gpu()


def test_the_doctor_tries_every_op_and_decay():
    ops = {name for name in dir(load_ops()) if name.startswith("Lrops_")}
    assert {f"Lrops_{schedule}" for schedule, _ in doctor._CURVES.values()} == ops
    with pytest.raises(ValueError, match="decay must be") as raised:
        _native.warmup_decay(np.array(0), **Curve().arguments(decay="", dtype="float32"))
    allowed = re.findall(r"'(\w+)'", str(raised.value).partition("Received")[0])
    assert {getattr(curve, "decay", None) for _, curve in doctor._CURVES.values()} == {None, *allowed}


@pytest.mark.parametrize("path", ["host function", "CPU, eager", "CPU, tf.function", "CPU, XLA"])
def test_a_path_tries_every_curve_and_compares_each(monkeypatch, path):
    compare, found = doctor._compare, {}
    monkeypatch.setattr(doctor, "_compare", found.update)
    doctor._CHECKS[path][0]()
    assert found.keys() == doctor._CURVES.keys()
    assert len({rates.tobytes() for rates in found.values()}) == 5
    assert compare(found) == {"rates": GOOD.removeprefix("rates ")}
    for name, rates in found.items():
        wrong = rates.copy()
        wrong[5] = np.nextafter(wrong[5], np.float32(1))
        with pytest.raises(RuntimeError, match=f"1 of 10 rates of {name} differ .* at step 33333: .*doctor --json"):
            compare(found | {name: wrong})


OPTIONS = {
    "cosine": (Curve, {"total_steps": 5000, "dtype": "float64"}),
    "linear": (Decay, {"total_steps": 5000, "hold_steps": 100, "alpha": 0.0}),
    "minus_sqrt": (Decay, {"total_steps": 5000, "warmup_start": 0.25}),
    "inverse_sqrt": (InverseSqrt, {"timescale": 300, "hold_steps": 100, "start_step": -1}),
    "restarts": (Restarts, {"first_decay_steps": 700, "cycles": 2, "t_mul": 1.5, "m_mul": 0.5}),
}


@pytest.mark.parametrize("decay", OPTIONS)
def test_the_table_of_every_curve(here, decay):
    case, given = OPTIONS[decay]
    options = [text for name, value in given.items() for text in ("--" + name.replace("_", "-"), value)]
    steps = [0, 1, 999, 1050, 1701, 2000, 2**62]
    code, said, _ = here("table", *PEAK, "--decay", decay, *options, "--steps", *steps)
    assert code == 0
    named = {"decay": decay} if case is Decay else {}
    expected = case.reference(steps, initial_learning_rate=1e-3, warmup_steps=1000, **given, **named)
    rates = [expected.dtype.type(line.split()[-1]) for line in said.splitlines()[1:]]
    np.testing.assert_array_equal(rates, expected)


def test_the_help_lists_the_curves_of_an_option(here):
    said = " ".join(here("plot", "--help")[1].split())
    assert "--decay {cosine,linear,minus_sqrt,inverse_sqrt,restarts}" in said
    assert "hold included; required with cosine, linear, minus_sqrt --" in said
    assert "floor / peak (0.001); only with cosine, linear, minus_sqrt, restarts --" in said
    assert "warmup_steps if not given; only with inverse_sqrt --" in said
    assert "first rate / peak (0.0) --" in said


def test_the_table_shows_the_landmarks(here):
    _, said, _ = here("table", *CURVE, "--hold-steps", "10", "--start-step", "-1")
    assert [" ".join(line.split()[:-1]) for line in said.splitlines()[1:]] == [
        *("start -1", "middle of warmup 499", "peak 999", "end of hold 1,009"),
        *("middle of decay 50,504", "last before the floor 99,998", "floor 99,999"),
    ]
    _, said, _ = here("table", *CURVE, "--start-step", 2**62, "--total-steps", 2**62)  # the floor is past int64
    assert said.splitlines()[-1].split() == ["last", "before", "the", "floor", f"{2**63 - 1:,}", "1e-06"]
    exact = 2**53 + 1  # no float64
    steps = ["--steps", "0.5e3", "1_000", "-1e3", f"{exact}.0"]
    _, said, _ = here("table", *PEAK, "--total-steps", "100_000.0", *steps)
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["500", "1,000", "-1,000", f"{exact:,}"]


WHOLE = "must be a whole number of 64 bits, such as 1000, 1_000 or 1e3. Received: "
REJECTED = [
    (["table", *CURVE, "--total-steps", "10"], "error: total_steps counts warmup and hold"),
    (["table", *CURVE, "--dtype", "int8"], "error: dtype must be"),
    (["table", *CURVE, "--steps", "0", 2**63], f"lrops table: error: argument --steps: {WHOLE}{2**63}. `python -m "),
    *((["table", *CURVE, "--warmup-steps", text], WHOLE + text) for text in ("1e999999", "1.5", "nan", "ten")),
    (["table", *CURVE, "--alpha", "0,1"], "--alpha: invalid float value: '0,1'. `python -m lrops table --help`"),
    (["plot", *PEAK, "--decay", "linear"], "the following arguments are required: --total-steps"),
    (["table", "--decay", "restarts"], "are required: --initial-learning-rate, --warmup-steps"),
    (["plot", *CURVE, "--timescale", "3"], "works only with --decay inverse_sqrt: leave it out. Received: --decay cos"),
    (["plot", *CURVE, "--output", "rate.docx"], "error: Format 'docx' is not supported"),
    (["bench", "--rounds", "1"], "error: --variables and --elements must be at least 1, and --rounds at least 2"),
    (["bench", "--optimizer", "Adamw"], "--optimizer must name a class of keras.optimizers. Received: Adamw"),
    (["plot", *CURVE, "--output", "no/such/folder.png"], "No such file or directory"),
    (
        ["plot", *CURVE, "--output", "nosuch://rate.png"],
        "nosuch://rate.png cannot be written: nosuch://rate.png: File system scheme",
    ),
]


@pytest.mark.parametrize(("arguments", "said"), REJECTED)
def test_what_is_rejected(here, arguments, said):
    code, _, errors = here(*arguments)
    assert code == (1 if "such" in str(arguments[-1]) else 2) and said in errors
    assert len(errors.splitlines()) == 1 and "usage" not in errors


def test_what_needs_no_tensorflow(package):
    without(package, "tensorflow", "ml_dtypes")  # the one brings the other
    result = lrops(package, "table", *CURVE, "--steps", "54321")
    rate = reference.warmup_decay(np.array(54321), 1e-3, 1000, 100_000, alpha=0.001)
    assert result.stdout.split()[-1] == str(rate), result
    facts, carried = _loader.build_info, ", ".join(_loader.supported_tensorflow())
    said = f"lrops {facts['version']}, commit {facts['commit']}, with libraries for TensorFlow {carried}\n"
    assert lrops(package, "--version").stdout == said
    # A letter that the terminal lacks is printed as an escape sequence.
    picture = named("größe.png")
    result = lrops(
        package, "plot", *CURVE, "--output", picture, PYTHONUTF8="1", PYTHONIOENCODING="ascii", TESTS_WITHOUT=""
    )
    assert result.stdout == "gr\\xf6\\xdfe.png\n", result
    assert matplotlib.image.imread(package.parent / picture).std() > 0.01


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("matplotlib", ["plot", *CURVE], "pip install matplotlib"),
        ("ml_dtypes", ["table", *CURVE, "--dtype", "bfloat16"], "pip install ml_dtypes"),
        ("tensorflow", ["bench"], "lrops needs TensorFlow, and none is installed"),
        ("lrops/_native", ["table", *CURVE], "lrops cannot load its library"),
    ],
)
def test_what_is_not_installed(package, module, arguments, said):
    if module == "lrops/_native":
        os.truncate(*package.glob("_native*.so"), 4096)
    else:
        without(package, module)
    result = lrops(package, *arguments)
    assert result.returncode == 1 and said in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_the_command_and_programs_of_the_same_name(package):
    """The command starts without TensorFlow. A program, whatever its name, gets all of lrops, or an error."""
    without(package, "tensorflow")
    shutil.copy(lrops_command.__file__, package.parent)
    assert PROJECT["project"]["scripts"] == {"lrops": "lrops_command:main"}
    assert PROJECT["tool"]["setuptools"]["py-modules"] == ["lrops_command"]
    (package.parent / "bin").mkdir()
    program = package.parent / "bin" / "lrops"
    program.write_text("import sys\nfrom lrops_command import main\nsys.exit(main())\n")  # as pip writes it
    result = python(package, program, "doctor")
    assert result.returncode == 1 and result.stdout.endswith("checks failed: TensorFlow.\n"), result
    assert "`lrops --help` lists the options" in python(package, program, "tabel").stderr
    program.write_text("import lrops\n")
    (package.parent / "training").mkdir()
    (package.parent / "training" / "__init__.py").write_text("import lrops\n")
    for command in ([program, "doctor"], ["-m", "training", "lrops"], ["-m", "training", "-m", "lrops"]):
        result = python(package, *command)
        assert result.stderr.splitlines()[-1].startswith("ImportError: lrops needs TensorFlow"), command


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["doctor"], ["--version"], ["table", *CURVE], ["plot", *CURVE], []], ids=str)
def test_output_into_a_pipe_that_is_closed(package, arguments, unbuffered):
    """As with `lrops table ... | head`: killed by SIGPIPE, without a word. A shell calls that 141."""
    without(package, "tensorflow")
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(package.parent), "TESTS_WITHOUT": ""}
    environment["PYTHONUNBUFFERED"] = unbuffered
    command = [sys.executable, "-m", "lrops", *arguments]
    result = subprocess.run(command, cwd=package.parent, env=environment, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("decay", benchmark.curves())
def test_the_contenders_of_a_benchmark_are_one_curve(decay):
    rates = benchmark.contenders(decay=decay)
    others = rates.keys() - {"constant", "constant, again", "lrops"}
    assert len(others) == (3 if decay == "cosine" else 2 if decay == "linear" else 1)
    config = rates["lrops"].get_config()
    assert curves.decay_of(config) == decay
    for step in (0, 500, 1000, 20_000, 60_000, 99_000, 100_000, 150_000):
        expected = curves.rates(config, np.array(step))
        for name in others:
            found = tf.function(rates[name])(tf.constant(step, tf.int64))
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9, err_msg=f"{name}, {step}")


def test_the_benchmark_runs(here):
    code, said, errors = here("bench", "--variables", 2, "--rounds", 2, "--mode", "graph", "--decay", "linear")
    assert code == 0 and "AdamW, 2 variables of 256 numbers, linear, graph" in said
    rows = [line.split("|")[1:4] for line in said.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == list(benchmark.contenders(decay="linear"))
    assert all(float(row[1]) > 0 for row in rows)
    assert "retracing" not in errors


@pytest.mark.parametrize(
    ("again", "own", "others", "said"),
    [
        (1.02, 0.95, 1.46, "Differences below 2 % are noise"),
        (1.00, 1.005, 0.995, "No difference: all step times agree within the noise, 1 %"),
        (0.93, 1.06, 0.96, "Too noisy to compare: the step with the constant rate alone varies by 7 %"),
    ],
)
def test_what_a_comparison_is_worth(again, own, others, said):
    ratios = {"constant": 1.0, "constant, again": again, "lrops": own, "Keras": others}
    rows = {name: {"us": 1000, "spread_us": 5, "ratio": ratio} for name, ratio in ratios.items()}
    assert benchmark.noise(rows).startswith(said)
