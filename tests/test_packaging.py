"""The build files agree, a build finds TensorFlow, its errors name a fix, and the sdist builds what is installed."""

import importlib
import json
import os
import re
import runpy
import shlex
import shutil
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import FOLDER, named
from processes import run_process
from pyproject import MINORS, PROJECT, VERSION, git, tensorflow

import lrops
from lrops import _native

INSTALLED = Path(lrops.__file__).parent
ROOT = Path(__file__).parent.parent
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where cmake and ninja are


def test_the_files_agree():
    assert sorted(MINORS, key=lambda minor: [int(part) for part in minor.split(".")]) == MINORS
    assert f"\n## {VERSION} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {VERSION}\n" in citation and f"\nlicense: {PROJECT['project']['license']}\n" in citation


def backend(code, path=ROOT / "cmake", **environment):
    """The exit code and the output of code that imports the build backend."""
    done = run_process(sys.executable, "-c", code, PYTHONPATH=str(path), **environment)
    return done.returncode, done.stdout + done.stderr


REQUIRES = "import backend; print([line for line in backend.get_requires_for_build_wheel() if 'tensorflow' in line])"


@pytest.mark.parametrize(
    ("wanted", "lacks"), [("", []), (FOLDER.removeprefix("_tf").replace("_", "."), []), ("2.9", tensorflow("==2.9.*"))]
)
def test_a_build_asks_only_for_a_tensorflow_that_the_environment_lacks(wanted, lacks):
    assert backend(REQUIRES, LROPS_TENSORFLOW=wanted) == (0, f"{lacks}\n")


def test_a_build_from_which_pip_hides_the_environment_takes_its_tensorflow_too(tmp_path):
    hide = "import pyproject, sys; sys.path = [path for path in sys.path if not path.endswith('site-packages')]"
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.path[:0] = [{str(ROOT / 'cmake')!r}]\n{hide}")
    seen = "import importlib.util; print(importlib.util.find_spec('tensorflow'))\n"
    assert backend(seen + REQUIRES, path=tmp_path) == (0, "None\n[]\n")


def test_a_build_on_another_system_stops():
    code, said = backend("import sys; sys.platform = 'darwin'; import backend")
    assert code == 1 and said.startswith("lrops needs Linux, and this is darwin: ") and said.count("\n") == 1


def configure(sources, build, *options):
    """The output of CMake for these sources, on one line."""
    cmake = shutil.which("cmake", path=PATH)
    done = run_process(cmake, "-G", "Ninja", "-S", sources, "-B", build, *options, PATH=PATH)
    return " ".join((done.stdout + done.stderr).split())


def unpack(folder, version):
    """Makes the folder look like TensorFlow's unpacked wheel."""
    (folder / "tensorflow").mkdir(parents=True)
    (folder / "tensorflow/__init__.py").touch()
    for name, lines in {"tensorflow_cpu": f"Name: tensorflow_cpu\nVersion: {version}\n", "broken": ""}.items():
        (folder / f"{name}-{version}.dist-info").mkdir()
        (folder / f"{name}-{version}.dist-info/METADATA").write_text(lines)


def test_a_build_rejects_another_tensorflow(tmp_path):
    unpack(tmp_path, "2.7.1")
    code, said = backend(REQUIRES, path=f"{tmp_path}:{ROOT / 'cmake'}")
    fix = f"run `pip install tensorflow-cpu=={MINORS[-1]}.*`, or set LROPS_TENSORFLOW=2.7 "
    assert code == 1 and f" has 2.7.1: {fix}" in said
    assert said.startswith(f"lrops builds for TensorFlow {', '.join(MINORS)}, and ") and said.count("\n") == 1
    assert backend(REQUIRES, path=f"{tmp_path}:{ROOT / 'cmake'}", LROPS_TENSORFLOW="2.7") == (0, "[]\n")
    code, said = backend("import backend; backend.to_build_for()", LROPS_TENSORFLOW="2.9")
    assert code == 1 and said.startswith("lrops builds for TensorFlow 2.9, and ") and "tensorflow-cpu==2.9.*" in said


def test_a_build_asks_for_a_tensorflow_and_without_isolation_needs_one(tmp_path):
    none = "import backend; backend.installed = list; "
    assert backend(none + REQUIRES) == (0, f"{tensorflow(f'=={MINORS[-1]}.*')}\n")
    code, said = backend(none + "backend.to_build_for()")
    assert code == 1 and f"{sys.executable} has none: run `pip install tensorflow-cpu=={MINORS[-1]}.*`, or" in said
    venv.create(tmp_path / "none")
    said = configure(ROOT, tmp_path / "build", f"-DPython_EXECUTABLE={tmp_path}/none/bin/python")
    assert "/none/bin/python has none: run `pip install .` instead" in said


def test_cmake_finds_its_own_headers_in_a_folder_with_a_space(tmp_path):
    sources, build = tmp_path / "the sources", tmp_path / "build"
    for name in ("cmake", "cc"):
        shutil.copytree(ROOT / name, sources / name)
    shutil.copy(ROOT / "CMakeLists.txt", sources)
    unpack(tmp_path / "unpacked", "2.18.1")  # which lacks some headers
    options = [f"-DTensorFlow_ROOT={tmp_path}/unpacked", "-DLROPS_MODULE=OFF", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    said = configure(sources, build, f"-DPython_EXECUTABLE={sys.executable}", *options)
    commands = json.loads((build / "compile_commands.json").read_text("utf-8"))
    assert {Path(command["file"]).stem for command in commands} >= {"learning_rate_cpu", "learning_rate_xla"}, said
    for command in commands:
        arguments = shlex.split(command["command"])
        folder = Path(arguments[arguments.index("-idirafter") + 1])
        assert folder.samefile(sources / "cmake/older_tensorflow")


def test_the_metadata_of_a_wheel(tmp_path):
    """2.21.0+archer2 has "rc" in it, and is no pre-release. The README's links work on a package index."""
    (tmp_path / "TENSORFLOW").write_text("2.20.0, 2.21.0+archer2")
    command = ["setup.py", "--quiet", "egg_info", "--egg-base", tmp_path]
    result = run_process(sys.executable, *command, folder=ROOT, LROPS_LIBRARIES=str(tmp_path), PATH=PATH)
    assert result.returncode == 0, result.stderr
    requires, about = ((tmp_path / "lrops.egg-info" / name).read_text("utf-8") for name in ("requires.txt", "PKG-INFO"))
    assert '\n[cpu:platform_machine == "x86_64"]\ntensorflow-cpu<2.22,>=2.20\n' in requires
    assert '\n[cpu:platform_machine != "x86_64"]\ntensorflow<2.22,>=2.20\n' in requires
    links = re.findall(r'(?:\]\(|src="|srcset="|href=")([^\s()"#]+)', about)
    assert links and all(link.startswith("https://") for link in links)
    assert [link for link in links if "/main/" in link and not (ROOT / link.partition("/main/")[2]).exists()] == []


def test_pyinstaller_finds_the_hook_which_packs_the_libraries():
    module, _, function = PROJECT["project"]["entry-points"]["pyinstaller40"]["hook-dirs"].partition(":")
    assert module in PROJECT["tool"]["setuptools"]["packages"]
    (folder,) = getattr(importlib.import_module(module), function)()
    hook = Path(folder, "hook-lrops.py")
    assert hook.is_file() and hook.parent.parent == INSTALLED
    pytest.importorskip("PyInstaller")
    packed = {(Path(path).name, folder) for path, folder in runpy.run_path(str(hook))["binaries"]}
    assert packed >= {(f"_lrops_{name}.so", os.path.join("lrops", FOLDER)) for name in ("ops", "xla")}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The sdist, unpacked."""
    if not (ROOT / ".git").exists():
        pytest.skip("an sdist is made in a git checkout")
    folder = tmp_path_factory.mktemp(named("a folder of another name: größer"))
    code = f"import sys; sys.path[:0] = ['cmake']; import backend; backend.build_sdist({str(folder)!r})"
    done = run_process(sys.executable, "-c", code, folder=ROOT)
    assert done.returncode == 0, done.stderr
    with tarfile.open(folder / f"lrops-{VERSION}.tar.gz") as file:
        file.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.3 and 3.10.11 have none
        file.extractall(folder)
    return folder / f"lrops-{VERSION}"


def test_the_sdist_is_the_checkout(sdist):
    tracked = git("ls-files", "-z").strip("\0").split("\0")
    made = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    assert made == {*tracked, "COMMIT", "PKG-INFO"}
    assert [path for path in tracked if (sdist / path).read_bytes() != (ROOT / path).read_bytes()] == []
    assert f"\nVersion: {VERSION}\n" in (sdist / "PKG-INFO").read_text("utf-8")


@pytest.mark.slow
def test_the_sdist_builds_what_is_installed(sdist, tmp_path):
    """The libraries are those that are installed; CMake's part that makes them is the same in a checkout."""
    shutil.copytree(INSTALLED / FOLDER, tmp_path / "libraries" / FOLDER)
    (tmp_path / "libraries/TENSORFLOW").write_text(lrops.build_info["tensorflow"])
    (sdist / "COMMIT").write_text(lrops.build_info["commit"])  # a later one may have changed none of the sources
    command = ["-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path, sdist]
    libraries = str(tmp_path / "libraries")
    done = run_process(sys.executable, *command, PATH=PATH, LROPS_LIBRARIES=libraries, PYTHONUTF8="1")  # pip needs it
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        built = {name: file.read(name) for name in file.namelist() if name.startswith("lrops/")}
    assert {Path(name).name for name in built} >= {"_lrops_ops.so", "_lrops_xla.so", Path(_native.__file__).name}
    if INSTALLED == ROOT / "lrops":  # `make dev` builds the module in another folder, which its debug data name
        del built[f"lrops/{Path(_native.__file__).name}"]
    assert [name for name, content in built.items() if (INSTALLED.parent / name).read_bytes() != content] == []


LIBRARIES = [Path(_native.__file__), INSTALLED / FOLDER / "_lrops_ops.so", INSTALLED / FOLDER / "_lrops_xla.so"]


def read(tool, *arguments):
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"no {tool} on this machine")
    return run_process(path, *arguments).stdout


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.split(".")[0])
def test_how_it_is_linked(library):
    dynamic, segments = read("readelf", "-dW", library), read("readelf", "-lW", library)
    assert "BIND_NOW" in dynamic and "GNU_RELRO" in segments
    assert not re.search("RPATH|RUNPATH|TEXTREL", dynamic)
    assert re.search(r"GNU_STACK.* RW ", segments)
    assert "__stack_chk_fail" in read("nm", "-D", library)
    exported = {line.split(" ", 2)[2] for line in read("nm", "-DC", "--defined-only", library).splitlines()}
    ours = {name for name in exported if not re.search(r"\bstd::", name)}
    assert ours == ({"PyInit__native"} if library.name.startswith("_native") else set())
