"""Finds the compiled libraries for the installed TensorFlow, loads them, and says what to do if it cannot.

It looks beside the package and nowhere else: no environment variable can put another library in its place.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import re
import site
import struct
import sys
from typing import Any, NamedTuple

_PRERELEASE = re.compile("rc|dev")
_PROCESSORS = {"x86_64": 62, "aarch64": 183}  # as an ELF file names them


class Cause(NamedTuple):
    """Why lrops cannot be imported."""

    says: str  # what is wrong: a heading of docs/clusters.md
    cure: str
    reported: str | None = None  # a regular expression: how the system reports it when a library is loaded


REINSTALL = (
    "install lrops again the way you did before, without the cache: pip's options are `--force-reinstall --no-deps "
    "--no-cache-dir`, uv's are `--reinstall-package lrops --no-cache`"
)
_BUILD = (
    "build lrops from its source on this system: `pip install --no-cache-dir --no-build-isolation --force-reinstall "
    "--no-deps .` in the folder of the source (uv: `--no-cache`)"
)
# Where several match what the system reports, the first is meant.
CAUSES = {
    "archive": Cause(
        "lrops cannot be imported from an archive ({path})",
        "the system loads its libraries from files. Unpack it, or install it with pip",
    ),
    "frozen": Cause(
        "this program was frozen without the libraries of lrops (there is no {path})",
        "for PyInstaller, pass `--additional-hooks-dir SITE-PACKAGES/lrops/_pyinstaller`; for another freezer, pack "
        "lrops/_tf*/*.so in the same folders",
    ),
    "no module": Cause(
        "lrops was installed without its compiled module, or it was built for another Python",
        REINSTALL + ". In a source checkout run `make dev`, or `pip install .`",
    ),
    "no libraries": Cause("lrops was installed without its libraries in {path}", REINSTALL),
    "no library": Cause("lrops was installed without its library {path}", REINSTALL),
    "no permission": Cause(
        "lrops cannot read its library {path} ({reported})",
        "make it readable for this user, `chmod -R a+rX` on the folder lrops in site-packages",
    ),
    "no ELF": Cause("lrops cannot load its library {path}: it is not a 64-bit ELF library", REINSTALL),
    "cut short": Cause("lrops cannot load its library {path}: the file is cut short", REINSTALL),
    "another processor": Cause(
        "lrops cannot load its library {path}: it was built elsewhere, for another processor", REINSTALL
    ),
    "newer system": Cause(
        "lrops cannot load its library {path}: it was built elsewhere, on a newer system than this one ({reported})",
        _BUILD,
        r"version `(GLIBC|GLIBCXX|CXXABI|GCC)_[^']*' not found",
    ),
    "another Python": Cause(
        "lrops cannot load its library {path}: it was built elsewhere, for another build of Python ({reported})",
        _BUILD,
        r"_native[^/]*: undefined symbol",
    ),
    "another TensorFlow": Cause(
        "lrops cannot load its library {path}: the TensorFlow that is installed has the right version, and another "
        "build than lrops was compiled for ({reported})",
        _BUILD,
        r"undefined symbol|libtensorflow_\w+\.so\.2",
    ),
    "noexec": Cause(
        "lrops cannot load its library {path}: its file system is mounted noexec ({reported})",
        "install lrops and its environment on a file system that allows execution",
        r"(?s)failed to map segment.*mounted noexec",
    ),
    "no memory": Cause(
        "lrops cannot load its library {path}: the system refuses to map it into memory ({reported})",
        "raise the limit of memory (`ulimit -v unlimited`); if there is none, a security policy forbids to run code "
        "from this folder: ask who looks after the system",
        r"failed to map segment|cannot map|Cannot allocate memory|memory protection",
    ),
    "unknown": Cause(
        "lrops cannot load its library {path}: it was built elsewhere, or is damaged ({reported})", REINSTALL, ""
    ),
    "loaded already": Cause(
        "lrops is already loaded in this process, from {loaded}, and cannot be loaded again, from {path}, as after an "
        "update or from another folder",
        "Start Python anew",
    ),
    "no TensorFlow": Cause(
        "lrops needs TensorFlow, and none is installed",
        "run `pip install 'lrops[cpu]'` (tensorflow-cpu) or `pip install 'lrops[cuda]'` (tensorflow with CUDA)",
    ),
    "empty TensorFlow": Cause(
        "lrops needs TensorFlow, and the `tensorflow` that Python finds ({path}) is an empty folder, as a half-removed "
        "installation leaves",
        "run `pip install --force-reinstall --no-cache-dir {requirement}`",
    ),
    "user site": Cause(
        "this lrops ({lrops}, in {path}) is built for TensorFlow {carried} and found TensorFlow {version} (in "
        "{folder}): one of them is in your own site-packages and hides the one that the system or the container has",
        "set PYTHONNOUSERSITE=1",
    ),
    "another version": Cause(
        "this lrops ({lrops}, in {path}) is built for TensorFlow {carried} and found TensorFlow {version} (in "
        "{folder}), whose binary interface differs",
        "run `pip install '{requirement}'` (or its -cpu flavour), or build lrops for yours from its source with "
        "`LROPS_TENSORFLOW={minor} pip install --no-build-isolation .` (of a .tar.gz, with `--no-cache-dir`; with uv, "
        "`--no-cache`)",
    ),
}


def refusal(cause: str, **facts: Any) -> ImportError:
    """The error for one of `CAUSES`; the facts are what its sentences name."""
    says, cure, _ = CAUSES[cause]
    return ImportError(f"{says}: {cure}.".format(**facts))


def refusal_of_library(path: str, reported: object) -> ImportError:
    """The error for a library that the system did not load, by what it reported."""
    text = str(reported)
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        text += ", mounted noexec"
    matches = (name for name, cause in CAUSES.items() if cause.reported is not None and re.search(cause.reported, text))
    return refusal(next(matches), path=path, reported=reported)


def _absent(cause, **facts):
    return refusal("frozen" if getattr(sys, "frozen", False) else cause, **facts)


def refuse_damaged(path: str) -> None:
    """Refuses a library that is not there, not readable, or damaged.

    Loading one that was cut short, as a full disk leaves it, would end the process by a signal.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(64).ljust(64, b"\0")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _absent("no library", path=path) from error
    except OSError as error:
        raise refusal("no permission", path=path, reported=error.strerror) from error
    if header[:5] != b"\x7fELF\x02":
        raise refusal("no ELF", path=path)
    (section_headers,) = struct.unpack_from("<Q", header, 40)  # they end the file
    size, count = struct.unpack_from("<HH", header, 58)
    if os.path.getsize(path) < section_headers + size * count:
        raise refusal("cut short", path=path)
    (processor,) = struct.unpack_from("<H", header, 18)
    if processor != _PROCESSORS.get(os.uname().machine, processor):
        raise refusal("another processor", path=path)


if not os.path.isdir(os.path.dirname(__file__)):
    raise _absent("archive", path=__file__)
_native = importlib.util.find_spec("lrops._native")
if _native is None or _native.origin is None:
    raise _absent("no module", path=os.path.join(os.path.dirname(__file__), "_native*.so"))
refuse_damaged(_native.origin)

try:
    from lrops._native import build_info as build_info
except ImportError as error:
    raise refusal_of_library(_native.origin, error) from error

_PACKAGE = os.path.dirname(_native.origin)


def supported_tensorflow() -> list[str]:
    """What this installation carries libraries for: TensorFlow's minors, as "2.21"; of pre-releases, "2.22.0rc0"."""
    built_for = {_minor(version): _compatible(version) for version in build_info["tensorflow"].split(", ")}
    folders = (name for name in os.listdir(_PACKAGE) if name.startswith("_tf"))
    minors = sorted(tuple(int(part) for part in name[3:].split("_")) for name in folders)
    return [built_for.get(name, name) for name in (f"{major}.{minor}" for major, minor in minors)]


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _compatible(version: str) -> str:
    """The versions that share its binary interface: its minor; a pre-release, which is like no other, alone.

    What follows a plus, as in 2.21.0+archer2, names who built it. pip writes 2.22.0rc0 and 2.22.0.dev20261101 for
    TensorFlow's 2.22.0-rc0 and 2.22.0-dev20261101.
    """
    public = version.partition("+")[0].replace("-rc", "rc").replace("-dev", ".dev")
    return public if _PRERELEASE.search(public) else _minor(public)


def _requirement(carried: list[str], flavour: str = "") -> str:
    """What pip is told, to install the newest that is carried: a release before any pre-release."""
    newest = ([version for version in carried if not _PRERELEASE.search(version)] or carried)[-1]
    if _PRERELEASE.search(newest):
        return f"{'tf-nightly' if 'dev' in newest else 'tensorflow'}{flavour}=={newest}"
    return f"tensorflow{flavour}=={newest}.*"


def _hides_another(folder: str) -> bool:
    """Whether this package is in the user's site-packages, and so hides one of its name that comes later."""
    others = (os.path.join(entry, os.path.basename(folder)) for entry in sys.path)
    return os.path.dirname(os.path.realpath(folder)) == os.path.realpath(site.getusersitepackages()) and any(
        os.path.isdir(other) and not os.path.samefile(other, folder) for other in others
    )


def import_tensorflow() -> Any:
    """TensorFlow, where this installation carries libraries for it; ImportError with the cure where not."""
    carried = supported_tensorflow()
    if not carried:
        raise _absent("no libraries", path=_PACKAGE)
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise refusal("no TensorFlow") from error
    version = getattr(tf, "__version__", None)
    if version is None:
        raise refusal("empty TensorFlow", path=tf.__path__, requirement=_requirement(carried, "-cpu"))
    # A library built for another minor may load and then crash the process: compare before loading.
    if _compatible(version) not in carried:
        folder = tensorflow_folder(tf)
        raise refusal(
            "user site" if _hides_another(folder) or _hides_another(_PACKAGE) else "another version",
            lrops=build_info["version"],
            path=_PACKAGE,
            carried=", ".join(carried),
            version=version,
            folder=folder,
            requirement=_requirement(carried),
            minor=_minor(version),
        )
    return tf


def tensorflow_folder(tf: Any) -> str:
    """Where TensorFlow was imported from."""
    return os.path.dirname(getattr(tf, "__file__", None) or "") or "an unknown folder"


def library_paths(version: str) -> dict[str, str]:
    """Where the libraries for this TensorFlow version are, by name: "ops" (CPU, GPU) and "xla"."""
    folder = os.path.join(_PACKAGE, "_tf" + "_".join(version.split(".")[:2]))
    return {name: os.path.join(folder, f"_lrops_{name}.so") for name in ("ops", "xla")}


def op_library_path() -> str:
    """The file of the ops for the installed TensorFlow, for tools that load an op library by its path.

    Such are tf2onnx (`--load_op_libraries`), and programs in C, Java or Go (`TF_LoadLibrary`). In Python,
    `import lrops` has loaded it.

    Returns:
        The absolute path of a library with the CPU and CUDA kernels, which fits the installed TensorFlow's minor only.

    Raises:
        ImportError: TensorFlow is missing or of another minor. The message says what was found and how to cure it.

    >>> import lrops, os
    >>> os.path.basename(lrops.op_library_path())
    '_lrops_ops.so'
    """
    return os.path.abspath(library_paths(import_tensorflow().__version__)["ops"])


def refuse_second_copy(paths: list[str]) -> None:
    """Refuses a second copy of the libraries: to register the same op with XLA again ends the process."""
    ours = {os.path.realpath(path) for path in paths}
    names = "|".join(re.escape(os.path.basename(path)) for path in ours)
    with open("/proc/self/maps", "rb") as maps:  # which marks a file that was replaced as deleted
        lines = [fields[5].rstrip(b"\n") for line in maps if len(fields := line.split(maxsplit=5)) == 6]
    for other in set(map(os.fsdecode, lines)) - ours:  # a name may be of any bytes
        if re.fullmatch(rf"(?s).*/({names})( \(deleted\))?", other):
            raise refusal("loaded already", loaded=other, path=_PACKAGE)


def _in_utf8(path: str) -> str:
    """A name of this file that TensorFlow takes, which wants UTF-8: Linux has names of any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"  # it stays open: a library is known by its name
    return path


@functools.cache
def load_ops() -> Any:
    """Loads the ops of lrops and their kernels into TensorFlow; `import lrops` does it already.

    Call it, or import lrops, before you open a SavedModel or run a graph that holds one of them.

    Returns:
        The module of generated wrappers, such as `lrops_warmup_decay`. A second call does nothing more.

    Raises:
        ImportError: TensorFlow is missing or of another minor, or a library is missing or broken. The message says
            what was found and the command that cures it.

    >>> import lrops
    >>> lrops.load_ops().lrops_warmup_decay.__name__
    'lrops_warmup_decay'
    """
    tf = import_tensorflow()
    modules, paths = {}, library_paths(tf.__version__)
    refuse_second_copy(list(paths.values()))
    for name, path in paths.items():
        refuse_damaged(path)
        try:
            modules[name] = tf.load_op_library(_in_utf8(path))
        except (tf.errors.OpError, OSError) as error:
            raise refusal_of_library(path, getattr(error, "message", error)) from error
    for op in ("Lrops>WarmupDecay", "Lrops>WarmupInverseSqrt", "Lrops>WarmupCosineRestarts"):
        with contextlib.suppress(KeyError):  # an earlier import of lrops in this process has said so
            tf.no_gradient(op)  # a step is an integer
    return modules["ops"]


def distributions() -> dict[str, str]:
    """The versions of the installed distributions that own the folder `tensorflow`, by their names.

    Whoever built it chose the name. One in a folder that another folder hides is left out.
    """
    found: dict[str, str] = {}
    imported = os.path.realpath(tensorflow_folder(sys.modules.get("tensorflow")))
    for distribution in importlib.metadata.distributions():
        packages = (distribution.read_text("top_level.txt") or "").split()
        record = distribution.read_text("RECORD") or ""
        if "tensorflow" in packages or re.search(r"^tensorflow/__init__\.py,", record, re.MULTILINE):
            own = str(distribution.locate_file("tensorflow"))
            # The metadata of an editable or split installation is elsewhere.
            if not os.path.isdir(own) or os.path.realpath(own) == imported:
                found.setdefault(distribution.metadata["Name"].replace("_", "-"), distribution.version)
    return found
