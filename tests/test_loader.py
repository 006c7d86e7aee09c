"""The loader: each way in which lrops cannot be imported is one sentence with its fix; load order does not matter.

Each case runs in its own process on a copy of the installed package, damaged as the case says.
"""

import compileall
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import FOLDER, fake_tensorflow, named
from processes import run_python, run_snippet

import lrops
from lrops import _loader, _native

MINOR = ".".join(tf.__version__.split(".")[:2])
CARRIED = _loader.supported_tensorflow()  # one, or of a wheel from `make wheels` several
INSTALL = "`pip install --force-reinstall --no-deps --no-cache-dir .`"
LIBRARIES = ["_lrops_ops.so", "_lrops_xla.so", "_native*.so"]


def find(package, library):
    (path,) = [*package.glob(library), *(package / FOLDER).glob(library)]
    return path


def error(result):
    """The last line of what a failing import prints, which is what a user reads."""
    assert result.returncode == 1, result
    return result.stderr.strip().splitlines()[-1].removeprefix("ImportError: ")


def rejected(package, script="import lrops", prefix=()):
    return error(run_python("-c", script, folder=package.parent, prefix=prefix, PYTHONPATH=str(package.parent)))


def sentence(cause):
    """What a message of this cause says, as a regular expression."""
    return re.sub(r"\\\{\w+\\\}", ".+", re.escape(_loader.CAUSES[cause][0]))


def test_no_tensorflow(package):
    said = rejected(package, "import sys; sys.modules['tensorflow'] = None\nimport lrops")
    assert said.startswith("lrops needs TensorFlow, and none is installed")
    for flavour in ("-cpu", "[and-cuda]"):
        assert f"`pip install 'tensorflow{flavour}=={CARRIED[-1]}.*'`" in said
    (package.parent / "tensorflow").mkdir()
    path = [folder for folder in sys.path if not Path(folder, "tensorflow").is_dir()]
    said = rejected(package, f"import sys; sys.path[1:] = {path}; import lrops")
    assert "half-removed" in said and f"({package.parent / 'tensorflow'})" in said
    assert f"--force-reinstall --no-cache-dir 'tensorflow=={CARRIED[-1]}.*'" in said
    (package.parent / "tensorflow.py").write_text("import no_such_module\n")  # what is broken speaks for itself
    assert rejected(package) == "ModuleNotFoundError: No module named 'no_such_module'"


# A library fits its minor; one for a pre-release fits that one alone, and a pre-release fits no library of another.
@pytest.mark.parametrize(
    "built, carried, fitting, others, requirement",
    [
        ("2.9.1, 2.21.0", "2.9, 2.21", "2.9.0, 2.21.2", "2.21.0-rc0, 2.21.0-dev20261101, 3.0.0", "tensorflow==2.21.*"),
        ("2.9.0, 2.22.0rc0", "2.9, 2.22.0rc0", "2.9.3, 2.22.0-rc0", "2.22.0-rc1, 2.22.0", "tensorflow==2.9.*"),
        ("2.22.0rc0", "2.22.0rc0", "2.22.0-rc0", "2.22.0", "tensorflow==2.22.0rc0"),
        # This one loads in 2.17, and then ends the process when XLA runs.
        ("2.16.2", "2.16", "2.16.1", "2.15.1, 2.17.0", "tensorflow==2.16.*"),
        ("2.23.0.dev1", "2.23.0.dev1", "2.23.0-dev1", "2.23.0-dev2", "tf-nightly==2.23.0.dev1"),
        # What follows a plus names the builder, and makes no pre-release.
        ("2.21.0+archer2", "2.21", "2.21.0+dev.local, 2.21.9+nv25.2", "2.22.0+nv25.2", "tensorflow==2.21.*"),
    ],
)
def test_what_a_library_fits(monkeypatch, tmp_path, built, carried, fitting, others, requirement):
    for version in built.split(", "):
        tmp_path.joinpath("_tf" + "_".join(version.split(".")[:2])).mkdir()
    monkeypatch.setattr(_loader, "_PACKAGE", str(tmp_path))
    monkeypatch.setattr(_loader, "distributions", lambda: {"tensorflow": ""})
    monkeypatch.setitem(_loader.build_info, "tensorflow", built)
    assert ", ".join(_loader.supported_tensorflow()) == carried
    for version in (fitting + ", " + others).split(", "):
        fake = types.SimpleNamespace(__version__=version, __file__="/there/tensorflow/__init__.py")
        monkeypatch.setitem(sys.modules, "tensorflow", fake)
        if version in fitting.split(", "):
            assert _loader.import_tensorflow() is fake
            continue
        found = (
            f"in {tmp_path}) is built for TensorFlow {carried} and found TensorFlow {version} (in /there/tensorflow)"
        )
        with pytest.raises(ImportError, match=re.escape(found)) as raised:
            _loader.import_tensorflow()
        assert f"`pip install '{requirement}'`" in str(raised.value) and INSTALL in str(raised.value)


@pytest.mark.parametrize("name", [*LIBRARIES, "_tf*"])
def test_a_missing_file(package, name):
    fake_tensorflow(package, tf.__version__)  # rejected before anything is loaded into it
    for path in [*package.glob(name), *(package / FOLDER).glob(name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = rejected(package)
    assert re.match(sentence("missing file"), said) and INSTALL in said
    file = Path(_native.__file__).name if name == "_native*.so" else "_lrops_*.so"
    assert Path(re.search(f"without its file {package}/(.+): install lrops again", said)[1]).match(file)


def test_an_archive(package, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", package.parent, "lrops")
    said = error(run_python("-c", f"import sys; sys.path.insert(0, {archive!r}); import lrops", folder="/"))
    assert f"without its file {archive}/lrops/_native" in said


DAMAGES = {
    "text": lambda whole: b"not a library\n",
    "empty": lambda whole: b"",
    "cut short": lambda whole: whole[:4096],
    "last byte lost": lambda whole: whole[:-1],
    "another machine": lambda whole: whole[:18] + b"\xb7\0" + whole[20:],  # aarch64
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_damaged_file(package, library):
    fake_tensorflow(package, tf.__version__)
    path = find(package, library)
    whole = path.read_bytes()
    for damage, change in DAMAGES.items():
        path.unlink()
        path.write_bytes(change(whole))
        with pytest.raises(ImportError, match=sentence("damaged file")) as raised:
            _loader.check_file(str(path))
        assert str(path) in str(raised.value) and INSTALL in str(raised.value), damage
    assert rejected(package) == str(raised.value)


# The cause that a report of the system becomes; the library, and the bytes in it that are replaced to get the report.
@pytest.mark.parametrize(
    ("cause", "library", "old", "new"),
    [
        ("newer system", "_lrops_ops.so", rb"\0GLIBCXX_3", rb"\0GLIBCXX_9"),
        ("newer system", "_native*.so", rb"\0(GLIBC(?:XX)?)_[23]", rb"\0\1_9"),
        ("another build", "_lrops_ops.so", rb"\0_ZN10tensorflow15OpKernel", rb"\0_ZN10tensorflow15OpKarnel"),
        ("another build", "_lrops_xla.so", rb"\0_ZN3xla", rb"\0_ZN3xlb"),
        ("another build", "_lrops_xla.so", rb"\0libtensorflow_cc.so.2\0", rb"\0libtensorflow_xx.so.2\0"),
        ("other", "_native*.so", rb"\0PyCapsule_GetPointer\0", rb"\0PyCapsule_GetPainter\0"),
    ],
)
def test_what_the_system_reports_becomes_a_cause(package, cause, library, old, new):
    path = find(package, library)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(changed := re.sub(old, new, whole))
    assert changed != whole and len(changed) == len(whole)
    said = error(run_snippet("import lrops", folder=package.parent))
    assert re.match(sentence(cause), said) and str(path) in said, said
    assert (INSTALL if cause != "other" else "docs/troubleshooting.md") in said


def test_what_other_systems_report():
    """In the words of glibc, on systems that no test machine can be."""
    for reported, cause in {
        "/lib/libstdc++.so.6: version `CXXABI_1.3.15' not found (required by x.so)": "newer system",
        "x.so: failed to map segment from shared object: Cannot allocate memory": "other",
    }.items():
        said = str(_loader.library_error("/x.so", reported))
        assert re.match(sentence(cause), said) and f"({reported}): " in said


def test_every_cause_has_its_section_in_the_docs():
    page = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text("utf-8")
    section = page.partition("\n## Errors of `import lrops`\n")[2].partition("\n## ")[0]
    headings = re.findall("^### (.+)$", section, re.MULTILINE)
    assert headings == [re.sub(r"\{(\w+)\}", lambda fact: fact[1].upper(), says) for says, _ in _loader.CAUSES.values()]


def test_a_system_without_linux(tmp_path):
    """Imitated: lrops must not ask what only Linux knows before it has said so."""
    script = """
import os, platform, sys
del os.uname, os.statvfs
platform.system, sys.platform = lambda: "Windows", "win32"
import lrops
"""
    said = error(run_snippet(script, folder=tmp_path))
    assert said == "lrops runs on Linux only, and this system is Windows: use Linux, a container or WSL 2."


def test_files_with_names_in_latin_1(package):
    """Of a file that is mapped, and of the package's folder. Some Pythons, such as 3.12.1, import no module from it."""
    folder = package.parent / os.fsdecode(b"gr\xf6\xdfer")
    folder.mkdir()
    package.rename(folder / "lrops")
    imports = "UnicodeEncodeError" not in run_python("-c", "import _native", folder=folder / "lrops").stderr
    # XLA wants the names of the source files in UTF-8, and compiles nothing from there.
    script = """
import mmap, os, sys
open(b"gr\\xf6\\xdfer.bin", "wb").write(bytes(5000))
mapped = mmap.mmap(os.open(b"gr\\xf6\\xdfer.bin", os.O_RDONLY), 0, prot=mmap.PROT_READ)
import numpy as np, lrops
assert lrops.WarmupCosineDecay(1e-3, 10, 100)(5).numpy() == np.float32(5e-4)
print(os.fsencode(lrops.__file__))
"""
    result = run_snippet(script, folder=folder)
    if imports:
        assert result.returncode == 0 and "gr\\xf6\\xdfer/lrops" in result.stdout, result.stderr
    else:
        assert re.match(sentence("other"), error(result)) and "surrogates not allowed" in result.stderr


# A superuser may read and write everything, as long as it has these capabilities.
ORDINARY = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
ordinary = pytest.mark.skipif(
    bool(ORDINARY) and bool(shutil.which("setpriv") is None or subprocess.call([*ORDINARY, "true"])),
    reason="setpriv cannot drop capabilities here",
)


@ordinary
def test_a_library_without_permission(package):
    fake_tensorflow(package, tf.__version__)
    for library in ("_lrops_ops.so", "_native*.so"):  # the second is loaded first
        (path := find(package, library)).chmod(0)
        said = rejected(package, prefix=ORDINARY)
        assert said.startswith(f"lrops cannot load its library {path} (Permission denied): docs/troubleshooting.md ")


XLA = """
for kind in (lrops.WarmupCosineDecay, lrops.WarmupCosineRestarts):
    schedule = tf.function(kind(1e-3, 10, 100), jit_compile=True)
    assert schedule(tf.constant(5, tf.int64)).numpy() == np.float32(5e-4)
print("ran")
"""


@ordinary
def test_a_read_only_package_without_sources_below_letters_of_any_kind(package, tmp_path):
    """As in a frozen program, there are compiled files only."""
    compileall.compile_dir(package, quiet=1, legacy=True)
    for path in package.glob("*.py"):
        path.unlink()
    folder = tmp_path / named("größer als 素晴らしい ' \" $HOME")
    folder.mkdir()
    package = package.rename(folder / "lrops")
    for path in [package, *package.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    imports = "import lrops\nimport numpy as np, tensorflow as tf\n"
    result = run_python("-c", imports + XLA, folder=folder, prefix=ORDINARY)
    package.chmod(0o755)
    assert result.returncode == 0 and "ran" in result.stdout, result.stderr
    assert "AutoGraph" not in result.stderr and "lrops" not in result.stderr
    assert not (package / "__pycache__").exists()


ORDERS = {
    "keras_model_first": "import keras\nkeras.Sequential([keras.layers.Dense(1)]).build((1, 1))\nimport lrops\n",
    "jit_first": "tf.function(lambda: tf.constant(1) + 1, jit_compile=True)()\nimport lrops\n",
    # After the modules were purged, as test runners do; after ops.py changed under IPython's autoreload.
    "again": """
import importlib, sys, lrops
lrops.load_ops(); lrops.load_ops()
importlib.reload(lrops)
before = lrops.WarmupCosineDecay
for name in [name for name in sys.modules if name.split(".")[0] == "lrops"]:
    del sys.modules[name]
import lrops
assert lrops.WarmupCosineDecay is not before
for name in ("_loader", "ops", "schedules"):
    importlib.reload(sys.modules["lrops." + name])
""",
}


@pytest.mark.parametrize("order", ORDERS)
def test_xla_works_whichever_came_first(order, tmp_path):
    result = run_snippet("import numpy as np, tensorflow as tf\n" + ORDERS[order] + XLA, folder=tmp_path)
    assert result.returncode == 0 and "ran" in result.stdout, result.stderr


def test_a_second_copy_is_rejected(package):
    script = f"""
import sys, lrops
for name in [name for name in sys.modules if name.split(".")[0] == "lrops"]:
    del sys.modules[name]
sys.path.insert(0, {str(package.parent)!r})
import lrops
"""
    said = error(run_snippet(script, folder=package))
    assert re.match(sentence("second copy"), said) and "restart Python" in said
    assert str(Path(lrops.__file__).parent) in said and str(package) in said


COUNT = """
import sys
import keras, tensorflow
before, opened, counting = set(sys.modules), [], True
sys.addaudithook(lambda event, arguments: counting and event == "open" and opened.append(arguments[0]))
import lrops
counting = False
print(len(opened), *sorted(set(sys.modules) - before))
"""


def test_import_opens_few_files_and_nothing_of_the_working_directory(package, tmp_path):
    """A job of a thousand processes reads them all from one file system; an attacker's library lies in two places."""
    compileall.compile_dir(package, quiet=1)  # as pip does
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / FOLDER).mkdir(parents=True)
    for name in ("_lrops_ops.so", "_lrops_xla.so"):
        (elsewhere / name).write_text("not a library")
        (elsewhere / FOLDER / name).write_text("not a library")
    environment = {"PYTHONPATH": str(package.parent), "LD_LIBRARY_PATH": str(elsewhere), "TESTS_WITHOUT": ""}
    result = run_python("-c", COUNT, folder=elsewhere, **environment)
    assert result.returncode == 0, result.stderr
    count, *modules = result.stdout.split()
    assert "lrops.schedules" in modules and 5 < int(count) < 25
    assert not [name for name in modules if name.split(".")[0] in ("matplotlib", "sklearn", "tf_keras", "tqdm")]


def test_what_is_said_of_the_build():
    assert set(lrops.build_info) == {"version", "commit", "tensorflow", "keras", "compiler", "cuda"}
    assert lrops.build_info["version"] == lrops.__version__
    built = lrops.build_info["tensorflow"].split(", ")
    assert len(built) == len(CARRIED) and any(version.startswith(f"{MINOR}.") for version in built)


def test_in_a_checkout_the_installed_package_is_imported(tmp_path):
    """Where the README leaves a reader, after `pip install .`"""
    sources = Path(__file__).parent.parent / "lrops"
    ignored = shutil.ignore_patterns("_native*.so", "_tf*", "__pycache__")
    shutil.copytree(sources, tmp_path / "lrops", ignore=ignored)
    (tmp_path / "setup.py").touch()
    result = run_snippet("import lrops; print(lrops.__file__)", folder=tmp_path)
    assert result.stdout.strip() == lrops.__file__, result.stderr
    result = run_python("-m", "lrops", "--version", folder=tmp_path)
    assert result.stdout.startswith(f"lrops {lrops.__version__}, commit {lrops.build_info['commit']}"), result.stderr
    said = error(run_python("-S", "-E", "-c", "import lrops", folder=tmp_path))  # there is no installed package
    assert re.match(sentence("missing file"), said) and f"{INSTALL} in its clone" in said
