"""The loader: every way in which the library cannot load is one sentence with its cure; load order does not matter.

Each case runs in its own process on a copy of the installed package, damaged as the case says.
"""

import compileall
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import FOLDER, fake_tensorflow
from processes import run_python

import lrops
from lrops import _loader

MINOR = ".".join(tf.__version__.split(".")[:2])
CARRIED = _loader.supported_tensorflow()  # one, or of a wheel from `make wheels` several


def refusal(package, script="import lrops", prefix=()):
    """The last line of what a failing import says, which is what a user reads."""
    result = run_python("-c", script, folder=package.parent, prefix=prefix, PYTHONPATH=str(package.parent))
    assert result.returncode == 1, result
    return result.stderr.strip().splitlines()[-1]


def test_no_tensorflow(package):
    said = refusal(package, "import sys; sys.modules['tensorflow'] = None\nimport lrops")
    assert "ImportError: lrops needs TensorFlow, and none is installed" in said
    for flavour in ("-cpu", "[and-cuda]"):
        assert f"`pip install 'tensorflow{flavour}=={CARRIED[-1]}.*'`" in said


def test_a_tensorflow_that_is_broken_speaks_for_itself(package):
    (package.parent / "tensorflow.py").write_text("import no_such_module\n")
    assert refusal(package) == "ModuleNotFoundError: No module named 'no_such_module'"


def test_a_half_removed_tensorflow(package):
    said = refusal(
        package,
        "import sys, types; tf = sys.modules['tensorflow'] = types.ModuleType('tensorflow')\n"
        "tf.__path__ = ['/somewhere/tensorflow']\nimport lrops",
    )
    assert "half-removed" in said and f"'tensorflow=={CARRIED[-1]}.*'" in said


@pytest.mark.parametrize("version", ["2.15.1", "2.99.0", "3.0.0", "2.99.0-dev20261101", f"{MINOR}.0-dev20261101"])
def test_another_tensorflow_is_refused_before_loading(package, version):
    fake_tensorflow(package, version)
    said = refusal(package)
    assert f"is built for TensorFlow {', '.join(CARRIED)} and found TensorFlow {version}" in said
    assert f"(in {package.parent / 'tensorflow'})" in said and f"in {package})" in said
    assert f"'tensorflow=={CARRIED[-1]}.*'" in said
    minor = ".".join(version.split(".")[:2])
    assert f"`LROPS_TENSORFLOW={minor} pip install --no-cache-dir --no-build-isolation .`" in said


# A library fits its minor; one for a pre-release fits that one alone, and a pre-release fits no library of another.
@pytest.mark.parametrize(
    "built, carried, fitting, refused, cure",
    [
        ("2.9.1, 2.21.0", "2.9, 2.21", "2.9.0, 2.21.2", "2.21.0-rc0, 2.21.0-dev20261101", "tensorflow==2.21.*"),
        ("2.9.0, 2.22.0rc0", "2.9, 2.22.0rc0", "2.9.3, 2.22.0-rc0", "2.22.0-rc1, 2.22.0", "tensorflow==2.9.*"),
        ("2.22.0rc0", "2.22.0rc0", "2.22.0-rc0", "2.22.0", "tensorflow==2.22.0rc0"),
        # Each of these two loads in the other, and then ends the process when XLA runs.
        ("2.16.2", "2.16", "2.16.1", "2.17.0, 2.17.1", "tensorflow==2.16.*"),
        ("2.17.1", "2.17", "2.17.0", "2.16.1, 2.16.2", "tensorflow==2.17.*"),
        ("2.23.0.dev1", "2.23.0.dev1", "2.23.0-dev1", "2.23.0-dev2", "tf-nightly==2.23.0.dev1"),
    ],
)
def test_what_a_library_fits(monkeypatch, tmp_path, built, carried, fitting, refused, cure):
    for version in built.split(", "):
        tmp_path.joinpath("_tf" + "_".join(version.split(".")[:2])).mkdir()
    monkeypatch.setattr(_loader, "_PACKAGE", str(tmp_path))
    monkeypatch.setitem(_loader.build_info, "tensorflow", built)
    assert ", ".join(_loader.supported_tensorflow()) == carried
    for version in fitting.split(", "):
        monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(__version__=version))
        assert _loader.import_tensorflow().__version__ == version
    for version in refused.split(", "):
        monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(__version__=version))
        with pytest.raises(ImportError, match=re.escape(f"found TensorFlow {version}")) as error:
            _loader.import_tensorflow()
        assert f"`pip install '{cure}'`" in str(error.value)


@pytest.mark.parametrize("library", ["_lrops_ops.so", "_lrops_xla.so"])
def test_a_missing_library(package, library):
    fake_tensorflow(package, tf.__version__)  # refused before anything is loaded into it
    (package / FOLDER / library).unlink()
    said = refusal(package)
    assert f"without its library {package / FOLDER / library}" in said and WITHOUT_CACHE in said


def test_no_libraries_at_all(package):
    fake_tensorflow(package, tf.__version__)
    for folder in package.glob("_tf*"):
        shutil.rmtree(folder)
    assert "without its libraries" in refusal(package)


DAMAGES = {
    "text": (lambda whole: b"not a library\n", "not a 64-bit ELF library"),
    "empty": (lambda whole: b"", "not a 64-bit ELF library"),
    "cut short": (lambda whole: whole[:4096], "cut short"),
    "last byte lost": (lambda whole: whole[:-1], "cut short"),
    "another machine": (lambda whole: whole[:18] + b"\xb7\0" + whole[20:], "for another processor"),  # aarch64
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("library", ["_lrops_ops.so", "_lrops_xla.so", "_native*.so"])
def test_a_damaged_library(package, library, damage):
    fake_tensorflow(package, tf.__version__)
    (path,) = [*package.glob(library), *(package / FOLDER).glob(library)]
    change, reason = DAMAGES[damage]
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(change(whole))
    said = refusal(package)
    assert f"cannot load its library {path}" in said and reason in said and WITHOUT_CACHE in said


WITHOUT_CACHE = "--force-reinstall --no-deps --no-cache-dir"
BUILD = "pip install --no-cache-dir --no-build-isolation"
MOUNT_NOEXEC = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs -o noexec tmpfs /mnt && cp -r lrops /mnt && "$@"',
    "sh",
]
# What the system reports of a library, by the cause that it stands for: the library, the bytes to put into it, a script
# and a command that make it so, and how it is cured.
REPORTS = {
    "newer system": [
        ("_lrops_ops.so", (rb"\0GLIBCXX_3", rb"\0GLIBCXX_9"), "", [], BUILD),
        ("_lrops_xla.so", (rb"\0GLIBCXX_3", rb"\0GLIBCXX_9"), "", [], BUILD),
        ("_native*.so", (rb"\0(GLIBC(?:XX)?)_[23]", rb"\0\1_9"), "", [], BUILD),
    ],
    "another Python": [("_native*.so", (rb"\0PyCapsule_GetPointer\0", rb"\0PyCapsule_GetPainter\0"), "", [], BUILD)],
    "another TensorFlow": [
        (
            "_lrops_ops.so",
            (rb"\0_ZN10tensorflow15OpKernelContext", rb"\0_ZN10tensorflow15OpKernelCantext"),
            "",
            [],
            BUILD,
        ),
        ("_lrops_xla.so", (rb"\0_ZN3xla", rb"\0_ZN3xlb"), "", [], BUILD),
        ("_lrops_xla.so", (rb"\0libtensorflow_cc.so.2\0", rb"\0libtensorflow_xx.so.2\0"), "", [], BUILD),
    ],
    "noexec": [("_native*.so", None, "import sys; sys.path.insert(0, '/mnt'); import lrops", MOUNT_NOEXEC, "noexec")],
    "no memory": [
        (
            "_lrops_ops.so",
            None,
            "import resource, tensorflow as tf\n"
            "load = tf.load_op_library\n"
            "def in_little_memory(path):\n"
            "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
            "    resource.setrlimit(resource.RLIMIT_AS, (used + 8192, -1))\n"
            "    try:\n"
            "        return load(path)\n"
            "    finally:\n"
            "        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
            "tf.load_op_library = in_little_memory\n"
            "import lrops\n",
            [],
            "ulimit -v unlimited",
        )
    ],
}


def sentence(cause):
    """What a message of this cause says, as a regular expression."""
    return re.sub(r"\\\{\w+\\\}", ".+", re.escape(_loader.CAUSES[cause].says))


@pytest.mark.parametrize(
    ("cause", "library", "change", "script", "prefix", "cure"),
    [(cause, *report) for cause, reports in REPORTS.items() for report in reports],
)
def test_what_the_system_reports_becomes_a_cause_with_its_cure(package, cause, library, change, script, prefix, cure):
    if prefix and subprocess.run([*prefix, "true"], cwd=package.parent, capture_output=True).returncode:
        pytest.skip(f"{prefix[0]} cannot mount here")
    (path,) = [*package.glob(library), *(package / FOLDER).glob(library)]
    if change:
        whole = path.read_bytes()
        path.unlink()
        path.write_bytes(changed := re.sub(*change, whole))
        assert changed != whole and len(changed) == len(whole)
    said = refusal(package, script or "import lrops", prefix=prefix)
    assert re.match(f"ImportError: {sentence(cause)}", said) and cure in said, said
    assert path.name in said


def test_what_the_system_reports_is_classified_without_that_system():
    """One that no test machine can be, in the words of glibc."""
    here = __file__
    for reported, cause in {
        "libm.so.6: version `GLIBC_2.38' not found (required by x.so)": "newer system",
        "/lib/libstdc++.so.6: version `CXXABI_1.3.15' not found (required by x.so)": "newer system",
        "x.so: undefined symbol: _ZN4absl12lts_2023080212log_internal10LogMessageD1Ev": "another TensorFlow",
        "libtensorflow_framework.so.2: cannot open shared object file: No such file or directory": "another TensorFlow",
        "x.so: failed to map segment from shared object: Cannot allocate memory": "no memory",
        "x.so: cannot apply additional memory protection after relocation: Permission denied": "no memory",
        "x.so: file too strange": "unknown",
    }.items():
        assert re.match(sentence(cause), str(_loader.refusal_of_library(here, reported))), reported


def test_every_cause_has_its_section_in_the_docs():
    """One table: cause, sentence, section. A section has the cure and what is tested there."""
    page = (Path(__file__).parent.parent / "docs" / "clusters.md").read_text("utf-8")
    section = page.partition("\n## When something fails\n")[2].partition("\n## ")[0]
    headings = re.findall("^### (.+)$", section, re.MULTILINE)
    assert headings == [
        re.sub(r"\{(\w+)\}", lambda fact: fact[1].upper(), cause.says) for cause in _loader.CAUSES.values()
    ]


def test_the_messages_name_the_cache():
    for name, cause in _loader.CAUSES.items():
        if "reinstall" in cause.cure or "--no-build-isolation" in cause.cure:
            assert "--no-cache-dir" in cause.cure, name
            if name != "empty TensorFlow":  # a wheel, which no cache can confuse
                assert "--no-cache`" in cause.cure, name  # uv's


def test_a_frozen_program_without_the_libraries(package):
    (package / FOLDER / "_lrops_ops.so").unlink()
    said = refusal(package, "import sys; sys.frozen = True; import lrops")
    assert "was frozen without the libraries of lrops" in said and "PyInstaller" in said
    for module in package.glob("_native*.so"):
        module.unlink()
    said = refusal(package, "import sys; sys.frozen = True; import lrops")
    assert "was frozen without the libraries of lrops" in said


def test_a_package_that_the_users_own_one_hides(package, tmp_path):
    """An old lrops in the user's site-packages, and the one of the container after it."""
    fake_tensorflow(package, "2.99.0")
    own = tmp_path / "own" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages" / "lrops"
    container = tmp_path / "container" / "lrops"
    shutil.copytree(package, own)
    shutil.move(package, container)
    script = (
        "import os, sys\n"
        "elsewhere = [folder for folder in sys.path if not os.path.isdir(os.path.join(folder, 'lrops'))]\n"
        f"sys.path[:] = [*elsewhere, {str(own.parent)!r}, {str(container.parent)!r}]\n"
        "import lrops"
    )
    for hides in (True, False):
        result = run_python("-c", script, folder=tmp_path, PYTHONUSERBASE=str(tmp_path / "own"))
        said = result.stderr.strip().splitlines()[-1]
        assert f"in {own})" in said and f"2.99.0 (in {tmp_path / 'tensorflow'})" in said
        assert said.endswith("set PYTHONNOUSERSITE=1.") == hides, said
        shutil.rmtree(container, ignore_errors=True)


def test_a_mapped_file_with_a_name_in_latin_1(tmp_path):
    script = (
        "import mmap, os\n"
        "name = b'gr\\xf6\\xdfer.bin'\n"
        "open(name, 'wb').write(bytes(5000))\n"
        "mapped = mmap.mmap(os.open(name, os.O_RDONLY), 0, prot=mmap.PROT_READ)\n"
        "import lrops\n"
    )
    result = run_python("-c", script, folder=tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_folder_with_a_name_in_latin_1(package):
    folder = package.parent / os.fsdecode(b"gr\xf6\xdfer")
    folder.mkdir()
    package.rename(folder / "lrops")
    if "UnicodeEncodeError" in run_python("-c", "import _native", folder=folder / "lrops").stderr:
        pytest.skip("this Python imports no extension module from such a folder, as 3.12.1 and 3.13.0")
    script = (
        f"import sys; sys.path[0] = {str(folder)!r}\n"
        "import numpy as np, lrops\n"
        "assert lrops.__file__.startswith(sys.path[0])\n"
    )
    # XLA wants the names of the source files in UTF-8, and compiles nothing from there.
    script += "assert lrops.WarmupCosineDecay(1e-3, 10, 100)(5).numpy() == np.float32(5e-4)\n"
    result = run_python("-c", script, folder=package.parent)
    assert result.returncode == 0, result.stderr


def test_imported_again_in_the_same_process(tmp_path):
    """After the modules were purged, as test runners do; after ops.py changed under IPython's autoreload."""
    script = """
import importlib, sys, numpy as np, tensorflow as tf, lrops
before = lrops.WarmupCosineDecay
for name in [name for name in sys.modules if name.split(".")[0] == "lrops"]:
    del sys.modules[name]
import lrops
assert lrops.WarmupCosineDecay is not before
for name in ("_loader", "ops", "schedules"):
    importlib.reload(sys.modules["lrops." + name])
"""
    result = run_python("-c", script + XLA, folder=tmp_path)
    assert result.returncode == 0 and "ran" in result.stdout, result.stderr


def test_the_gradient_of_a_rate_is_none():
    step = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(step)
        rate = lrops.WarmupCosineDecay(1.0, 10, 100)(tf.cast(step, tf.int64))
    assert tape.gradient(rate, step) is None


def test_the_path_of_the_op_library():
    """For tools that load an op library by its path, as tf2onnx and programs in C do."""
    path = Path(lrops.op_library_path())
    assert path.is_absolute() and path.is_file() and path.parent.name == FOLDER
    library = tf.load_op_library(str(path))
    assert library.lrops_warmup_decay is not None


@pytest.mark.parametrize("version", [f"{MINOR}.0+archer2", f"{MINOR}.0+dev.local", f"{MINOR}.9+nv25.2"])
def test_a_label_of_who_built_it_is_no_pre_release(monkeypatch, version):
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(__version__=version))
    assert _loader.import_tensorflow().__version__ == version
    monkeypatch.setitem(_loader.build_info, "tensorflow", version)
    assert MINOR in _loader.supported_tensorflow()


def test_no_warning_of_autograph_without_sources(package):
    """As in a frozen program: compiled files and no others."""
    compileall.compile_dir(package, quiet=1, legacy=True)
    for path in package.glob("*.py"):
        path.unlink()
    result = run_python("-c", "import numpy as np, tensorflow as tf, lrops\n" + XLA, folder=package.parent)
    assert result.returncode == 0 and "ran" in result.stdout, result.stderr
    assert "AutoGraph" not in result.stderr and "lrops" not in result.stderr


def test_a_path_with_spaces_and_letters_of_any_kind(package, tmp_path):
    folder = tmp_path / "größer als 素晴らしい ' \" $HOME"
    folder.mkdir()
    package.rename(folder / "lrops")
    result = run_python("-c", ORDERS["lrops_first"] + XLA, folder=folder)
    assert result.returncode == 0 and "ran" in result.stdout, result.stderr


# A superuser may read and write everything, as long as it has these capabilities.
ORDINARY = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
ordinary = pytest.mark.skipif(
    ORDINARY != []
    and (not shutil.which("setpriv") or subprocess.run([*ORDINARY, "true"], capture_output=True).returncode != 0),
    reason="setpriv cannot drop capabilities here",
)


@ordinary
@pytest.mark.parametrize("library", ["_lrops_ops.so", "_lrops_xla.so", "_native*.so"])
def test_a_library_without_permission(package, library):
    fake_tensorflow(package, tf.__version__)
    (path,) = [*package.glob(library), *(package / FOLDER).glob(library)]
    path.chmod(0)
    said = refusal(package, prefix=ORDINARY)
    assert f"ImportError: lrops cannot read its library {path} (Permission denied)" in said and "chmod" in said


@ordinary
@pytest.mark.parametrize("folder", [FOLDER, "."])
def test_a_folder_without_permission(package, folder):
    fake_tensorflow(package, tf.__version__)
    (package / folder).chmod(0o311 if folder == "." else 0)
    said = refusal(package, prefix=ORDINARY)
    (package / folder).chmod(0o755)
    assert f"lrops cannot read its {'folder' if folder == '.' else 'library'} {package}" in said and "chmod" in said


@ordinary
def test_a_package_that_cannot_be_written_to(package):
    for path in [package, *package.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    result = run_python("-c", ORDERS["lrops_first"] + XLA, folder=package.parent, prefix=ORDINARY)
    assert result.returncode == 0 and "ran" in result.stdout, result.stderr
    assert not (package / "__pycache__").exists()


def test_an_archive(package, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", package.parent, "lrops")
    shutil.rmtree(package)
    said = refusal(package, f"import sys; sys.path.insert(0, {archive!r}); import lrops")
    assert said.startswith("ImportError: lrops cannot be imported from an archive") and "pip" in said


def test_a_missing_module(package):
    for module in package.glob("_native*.so"):
        module.unlink()
    assert "without its compiled module" in refusal(package)


XLA = """
schedule = tf.function(lrops.WarmupCosineDecay(1e-3, 10, 100), jit_compile=True)
assert schedule(tf.constant(5, tf.int64)).numpy() == np.float32(5e-4)
restarts = tf.function(lrops.WarmupCosineRestarts(1e-3, 10, 100), jit_compile=True)
assert restarts(tf.constant(110, tf.int64)).numpy() == np.float32(1e-3)
print("ran")
"""
ORDERS = {
    "lrops_first": "import lrops\nimport numpy as np, tensorflow as tf\n",
    "eager_op_first": "import numpy as np, tensorflow as tf\nx = tf.constant(1)\nimport lrops\n",
    "keras_model_first": "import numpy as np, tensorflow as tf, keras\n"
    "keras.Sequential([keras.layers.Dense(1)]).build((1, 1))\nimport lrops\n",
    "jit_first": "import numpy as np, tensorflow as tf\n"
    "tf.function(lambda: tf.constant(1) + 1, jit_compile=True)()\nimport lrops\n",
    "twice": "import importlib, numpy as np, tensorflow as tf, lrops\nlrops.load_ops(); lrops.load_ops()\n"
    "importlib.reload(lrops)\n",
}


@pytest.mark.parametrize("order", ORDERS)
def test_xla_works_whichever_came_first(order, tmp_path):
    result = run_python("-c", ORDERS[order] + XLA, folder=tmp_path)
    assert result.returncode == 0 and "ran" in result.stdout, result.stderr


def test_a_second_copy_is_refused(package):
    script = f"""
import sys, lrops
for name in [name for name in sys.modules if name.split(".")[0] == "lrops"]:
    del sys.modules[name]
sys.path.insert(0, {str(package.parent)!r})
import lrops
"""
    result = run_python("-c", script, folder=package)
    assert result.returncode == 1, result
    said = result.stderr.strip().splitlines()[-1]
    assert said.startswith("ImportError: ") and "already loaded" in said and "restart Python" in said
    assert str(Path(lrops.__file__).parent) in said and str(package) in said


def test_nothing_is_loaded_from_the_working_directory(package, tmp_path):
    """An attacker's file of the right name, in the working directory and on the library path, is not opened."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / FOLDER).mkdir(parents=True)
    for name in ("_lrops_ops.so", "_lrops_xla.so"):
        (elsewhere / name).write_text("not a library")
        (elsewhere / FOLDER / name).write_text("not a library")
    environment = {"PYTHONPATH": str(package.parent), "LD_LIBRARY_PATH": str(elsewhere)}
    result = run_python("-c", "import lrops", folder=elsewhere, **environment)
    assert result.returncode == 0, result.stderr


def test_build_info_is_plain():
    assert json.loads(json.dumps(lrops.build_info)) == lrops.build_info
    assert lrops.build_info["version"] == lrops.__version__
    assert len(lrops.build_info["tensorflow"].split(", ")) == len(CARRIED)
    assert any(version.startswith(f"{MINOR}.") for version in lrops.build_info["tensorflow"].split(", "))
    assert set(lrops.build_info) == {"version", "commit", "tensorflow", "keras", "compiler", "cuda"}


@pytest.fixture
def checkout(tmp_path):
    """A folder like a clone: the sources of the package, not compiled, below a setup.py."""
    sources = Path(__file__).parent.parent / "lrops"
    ignored = shutil.ignore_patterns("_native*.so", "_tf*", "__pycache__")
    shutil.copytree(sources, tmp_path / "clone" / "lrops", ignore=ignored)
    (tmp_path / "clone" / "setup.py").touch()
    return tmp_path / "clone"


@pytest.mark.parametrize("command", [["-c", "import lrops; print(lrops.__file__)"], ["-m", "lrops", "doctor"]])
def test_in_a_checkout_the_installed_package_is_imported(checkout, command):
    """Where the README leaves a reader, after `pip install .`"""
    result = run_python(*command, folder=checkout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert str(Path(lrops.__file__).parent) in result.stdout and str(checkout) not in result.stdout


def test_in_a_checkout_without_an_installed_package_the_cure_is_named(checkout):
    result = run_python("-S", "-E", "-c", "import lrops", folder=checkout)
    assert result.returncode == 1
    assert "in a clone of lrops, run `make dev` or `pip install .`" in result.stderr.strip().splitlines()[-1]
