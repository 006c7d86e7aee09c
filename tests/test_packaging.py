"""The build files agree, CMake's errors name a cure, the sdist builds what is installed, and how it is linked."""

import importlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import FOLDER
from processes import run_process
from pyproject import MINORS, VERSION

import lrops
from lrops import _native

INSTALLED = Path(lrops.__file__).parent
ROOT = Path(__file__).parent.parent
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where cmake and ninja are


def test_the_minors_are_in_order():
    assert sorted(MINORS, key=lambda minor: [int(part) for part in minor.split(".")]) == MINORS


def test_the_changelog_has_the_version():
    assert f"\n## {VERSION} " in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_citation_agrees_with_the_package():
    said = (ROOT / "CITATION.cff").read_text("utf-8")
    (licence,) = re.findall('^license = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert f"\nversion: {VERSION}\n" in said and f"\nlicense: {licence}\n" in said


def configure(sources, build, *options):
    """What CMake says of these sources, on one line."""
    cmake = shutil.which("cmake", path=PATH)
    done = run_process(cmake, "-G", "Ninja", "-S", sources, "-B", build, *options, PATH=PATH)
    return " ".join((done.stdout + done.stderr).split())


def unpack(folder, version):
    """Something that CMake takes for TensorFlow's wheel, unpacked; returns CMake's option for it."""
    (folder / "tensorflow").mkdir(parents=True)
    (folder / "tensorflow/__init__.py").touch()
    for name, lines in {"tensorflow_cpu": f"Name: tensorflow_cpu\nVersion: {version}\n", "broken": ""}.items():
        (folder / f"{name}-{version}.dist-info").mkdir()
        (folder / f"{name}-{version}.dist-info/METADATA").write_text(lines)
    return f"-DTensorFlow_ROOT={folder}"


MANY = "-DLROPS_TENSORFLOW=2.8;2.9"


def test_cmake_asks_for_a_tensorflow(tmp_path):
    python = tmp_path / "environment/bin/python"
    venv.create(python.parent.parent)
    said = configure(ROOT, tmp_path / "build", f"-DPython_EXECUTABLE={python}", MANY)
    assert f"{python} has none: run `pip install tensorflow-cpu==2.9.*` there" in said


def test_cmake_refuses_another_tensorflow(tmp_path):
    option = unpack(tmp_path / "unpacked", "2.7.1")
    said = configure(ROOT, tmp_path / "build", f"-DPython_EXECUTABLE={sys.executable}", MANY, option)
    assert "tried with TensorFlow 2.8, 2.9;" in said and " has 2.7.1: run `pip install tensorflow-cpu==2.9.*`," in said


def test_cmake_finds_its_own_headers_in_a_folder_with_a_space(tmp_path):
    sources, build = tmp_path / "the sources", tmp_path / "build"
    for name in ("cmake", "cc"):
        shutil.copytree(ROOT / name, sources / name)
    shutil.copy(ROOT / "CMakeLists.txt", sources)
    older = unpack(tmp_path / "unpacked", "2.18.1")  # which lacks some headers
    said = configure(
        sources,
        build,
        f"-DPython_EXECUTABLE={sys.executable}",
        older,
        "-DLROPS_MODULE=OFF",
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
    )
    commands = json.loads((build / "compile_commands.json").read_text("utf-8"))
    assert {Path(command["file"]).stem for command in commands} >= {"learning_rate_cpu", "learning_rate_xla"}, said
    for command in commands:
        arguments = shlex.split(command["command"])
        folder = Path(arguments[arguments.index("-idirafter") + 1])
        assert folder.samefile(sources / "cmake/older_tensorflow")


def build(folder, *command):
    result = run_process(sys.executable, *command, folder=folder)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_label_of_who_built_tensorflow_is_no_pre_release(tmp_path):
    """2.21.0+archer2 has "rc" in it, and is a release."""
    for version in ("2.20.0", "2.21.0+archer2"):
        folder = tmp_path / ("_tf" + "_".join(version.split(".")[:2]))
        folder.mkdir()
        (folder / "TENSORFLOW").write_text(version)
    command = ["setup.py", "--quiet", "egg_info", "--egg-base", tmp_path]
    result = run_process(sys.executable, *command, folder=ROOT, LROPS_LIBRARIES=str(tmp_path), PATH=PATH)
    assert result.returncode == 0, result.stderr
    written = (tmp_path / "lrops.egg-info/requires.txt").read_text()
    assert '\n[cpu:platform_machine == "x86_64"]\ntensorflow-cpu<2.22,>=2.20\n' in written
    assert '\n[cpu:platform_machine != "x86_64"]\ntensorflow<2.22,>=2.20\n' in written


def hook():
    """What pyproject.toml tells PyInstaller: the file that says what to pack."""
    said = (ROOT / "pyproject.toml").read_text("utf-8")
    module, function = re.search(r'\[project.entry-points.pyinstaller40\]\nhook-dirs = "(.+):(.+)"', said).groups()
    assert f'packages = ["lrops", "{module}"]' in said
    (folder,) = getattr(importlib.import_module(module), function)()
    return Path(folder, "hook-lrops.py")


def test_pyinstaller_is_told_where_the_hook_is():
    assert hook().is_file() and hook().parent.parent == INSTALLED


def test_the_hook_packs_the_libraries():
    pytest.importorskip("PyInstaller")
    binaries = runpy.run_path(str(hook()))["binaries"]
    assert {(Path(path).name, folder) for path, folder in binaries} >= {
        (f"_lrops_{name}.so", os.path.join("lrops", FOLDER)) for name in ("ops", "xla")
    }


@pytest.mark.skipif(INSTALLED == ROOT / "lrops", reason="lrops is imported from the checkout, not installed")
def test_the_sdist_builds_what_is_installed(tmp_path, monkeypatch):
    folder = tmp_path / "a folder of another name: größer"
    folder.mkdir()
    build(ROOT, "-c", f"import sys; sys.path[:0] = ['cmake']; import backend; backend.build_sdist({str(folder)!r})")
    (archive,) = folder.glob("lrops-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.3 and 3.10.11 have none
        file.extractall(folder)
    sources = folder / archive.name.removesuffix(".tar.gz")
    if (ROOT / ".git").exists():
        tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, encoding="utf-8").split("\0")
        assert [path for path in tracked if not path.startswith(".") and not (sources / path).exists()] == []
    (sources / "COMMIT").write_text(lrops.build_info["commit"])  # a later one may have changed none of the sources
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PATH", PATH)
    build(folder, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sources)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        built = {name: file.read(name) for name in file.namelist() if name.startswith("lrops/")}
    assert {Path(name).name for name in built} >= {"_lrops_ops.so", "_lrops_xla.so", Path(_native.__file__).name}
    for name, content in built.items():
        assert (INSTALLED.parent / name).read_bytes() == content, name


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
