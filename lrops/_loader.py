"""Loads the compiled libraries that fit the installed TensorFlow, or raises an ImportError that names the cure.

It looks in the package's own folder only. No environment variable can make it load another library.
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
_CPU = "-cpu" if os.uname().machine == "x86_64" else ""  # TensorFlow has no tensorflow-cpu for ARM64
_PROCESSORS = {"x86_64": 62, "aarch64": 183}  # as an ELF file names them


class Cause(NamedTuple):
    """A reason why lrops cannot be imported."""

    says: str  # what is wrong; also a heading in docs/clusters.md
    cure: str
    reported: str | None = None  # a regular expression for what the system reports when a library does not load


REINSTALL = (
    "install lrops again from its wheel file or its clone, as you did before, and add the options `--force-reinstall "
    "--no-deps --no-cache-dir` (uv: `--reinstall-package lrops --no-cache`)"
)
_BUILD = (
    "build lrops on this system, in a clone of lrops: `pip install --no-cache-dir --no-build-isolation "
    '--force-reinstall --no-deps .` (uv: `--no-cache`); docs/clusters.md, "From source", lists what a build needs'
)
# If several patterns match a report, the first one counts.
CAUSES = {
    "archive": Cause(
        "lrops cannot be imported from an archive ({path})",
        "install it into a folder, with pip: the system loads libraries from plain files only",
    ),
    "frozen": Cause(
        "this program was frozen without the libraries of lrops (there is no {path})",
        "with PyInstaller, pass `--additional-hooks-dir SITE-PACKAGES/lrops/_pyinstaller`; with another freezer, pack "
        "the files lrops/_tf*/*.so into the same folders",
    ),
    "no module": Cause(
        "lrops was installed without its compiled module, or it was built for another Python",
        "in a clone of lrops, run `make dev` or `pip install .`; otherwise, " + REINSTALL,
    ),
    "no libraries": Cause("lrops was installed without its libraries in {path}", REINSTALL),
    "no library": Cause("lrops was installed without its library {path}", REINSTALL),
    "no permission": Cause(
        "lrops cannot read its library {path} ({reported})",
        "run `chmod -R a+rX` on the folder `lrops` in site-packages, so that this user can read it",
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
        "lrops cannot load its library {path}: the installed TensorFlow has the right version, but it is another build "
        "than the one lrops was compiled for ({reported})",
        _BUILD,
        r"undefined symbol|libtensorflow_\w+\.so\.2",
    ),
    "noexec": Cause(
        "lrops cannot load its library {path}: its file system is mounted noexec ({reported})",
        "move the Python environment to a file system that allows execution",
        r"(?s)failed to map segment.*mounted noexec",
    ),
    "no memory": Cause(
        "lrops cannot load its library {path}: the system refuses to map it into memory ({reported})",
        "raise the memory limit of the process (`ulimit -v unlimited`); if there is no limit, a security policy, such "
        "as SELinux, forbids running code from this folder: ask your administrator",
        r"failed to map segment|cannot map|Cannot allocate memory|memory protection",
    ),
    "unknown": Cause(
        "lrops cannot load its library {path}: it was built elsewhere, or is damaged ({reported})", REINSTALL, ""
    ),
    "loaded already": Cause(
        "lrops is already loaded in this process (from {loaded}); it cannot load a second copy (from {path})",
        "restart Python",
    ),
    "no TensorFlow": Cause(
        "lrops needs TensorFlow, and none is installed",
        "run `pip install '{cpu}'`{gpu}",
    ),
    "empty TensorFlow": Cause(
        "lrops needs TensorFlow, and the `tensorflow` that Python finds ({path}) is the empty folder of a half-removed "
        "installation",
        "run `pip install --force-reinstall --no-cache-dir '{requirement}'`",
    ),
    "user site": Cause(
        "this lrops ({lrops}, in {path}) is built for TensorFlow {carried} and found TensorFlow {version} (in "
        "{folder}): one of the two is in your own site-packages and hides the copy of the system or the container",
        "set PYTHONNOUSERSITE=1",
    ),
    "another version": Cause(
        "this lrops ({lrops}, in {path}) is built for TensorFlow {carried} and found TensorFlow {version} (in "
        "{folder}), whose binary interface differs",
        "run `pip install '{requirement}'`; or keep your TensorFlow and build lrops for it, in a clone of lrops: "
        "`LROPS_TENSORFLOW={minor} pip install --no-cache-dir --no-build-isolation .` (uv: `--no-cache`); "
        'docs/clusters.md, "From source", lists what a build needs',
    ),
}


def refusal(cause: str, **facts: Any) -> ImportError:
    """The error for one of `CAUSES`. The facts fill the braces in its sentences."""
    says, cure, _ = CAUSES[cause]
    return ImportError(f"{says}: {cure}.".format(**facts))


def refusal_of_library(path: str, reported: object) -> ImportError:
    """The error for a library that the system did not load. What the system reported selects the cause."""
    text = str(reported)
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        text += ", mounted noexec"
    matches = (name for name, cause in CAUSES.items() if cause.reported is not None and re.search(cause.reported, text))
    return refusal(next(matches), path=path, reported=reported)


def _absent(cause, **facts):
    return refusal("frozen" if getattr(sys, "frozen", False) else cause, **facts)


def refuse_damaged(path: str) -> None:
    """Raises if a library is missing, not readable, or damaged.

    A full disk can cut a file short. Loading such a library would kill the process by a signal.
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
    (section_headers,) = struct.unpack_from("<Q", header, 40)  # the last part of the file
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
    """The TensorFlow versions that this installation has libraries for: "2.21", or "2.22.0rc0" for a pre-release."""
    built_for = {_minor(version): _compatible(version) for version in build_info["tensorflow"].split(", ")}
    folders = (name for name in os.listdir(_PACKAGE) if name.startswith("_tf"))
    minors = sorted(tuple(int(part) for part in name[3:].split("_")) for name in folders)
    return [built_for.get(name, name) for name in (f"{major}.{minor}" for major, minor in minors)]


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _compatible(version: str) -> str:
    """The name of all versions with the same binary interface as `version`.

    All releases of a minor share one interface, so the name is the minor, such as "2.21". A pre-release shares its
    interface with no other version, so the name is its own version. Text after a plus, such as in 2.21.0+archer2, only
    names the builder. TensorFlow writes 2.22.0-rc0 and 2.22.0-dev20261101; pip writes 2.22.0rc0 and 2.22.0.dev20261101.
    """
    public = version.partition("+")[0].replace("-rc", "rc").replace("-dev", ".dev")
    return public if _PRERELEASE.search(public) else _minor(public)


def _flavour() -> str:
    """What follows `tensorflow` in the name of the installed distribution: "-cpu", or nothing."""
    names = distributions()
    return "-cpu" if names and all(name.endswith("-cpu") for name in names) else ""


def _requirement(carried: list[str], flavour: str) -> str:
    """The argument of `pip install` for the newest TensorFlow that is carried. A release wins over a pre-release."""
    newest = ([version for version in carried if not _PRERELEASE.search(version)] or carried)[-1]
    if _PRERELEASE.search(newest):
        return f"{'tf-nightly' if 'dev' in newest else 'tensorflow'}{flavour}=={newest}"
    return f"tensorflow{flavour}=={newest}.*"


def _hides_another(folder: str) -> bool:
    """Whether the package in `folder` is in the user's site-packages and hides another copy later on `sys.path`."""
    others = (os.path.join(entry, os.path.basename(folder)) for entry in sys.path)
    return os.path.dirname(os.path.realpath(folder)) == os.path.realpath(site.getusersitepackages()) and any(
        os.path.isdir(other) and not os.path.samefile(other, folder) for other in others
    )


def import_tensorflow() -> Any:
    """Imports and returns TensorFlow; raises an ImportError with the cure if no library here fits it."""
    carried = supported_tensorflow()
    if not carried:
        raise _absent("no libraries", path=_PACKAGE)
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        cpu, cuda = (_requirement(carried, flavour) for flavour in (_CPU, "[and-cuda]"))
        gpu = f", or, for an NVIDIA GPU, `pip install '{cuda}'`" if _CPU else ""  # none on ARM64
        raise refusal("no TensorFlow", cpu=cpu, gpu=gpu) from error
    version = getattr(tf, "__version__", None)
    if version is None:
        raise refusal("empty TensorFlow", path=tensorflow_folder(tf), requirement=_requirement(carried, _flavour()))
    # A library that was built for another minor may load and then crash the process.
    if _compatible(version) not in carried:
        folder = tensorflow_folder(tf)
        raise refusal(
            "user site" if _hides_another(folder) or _hides_another(_PACKAGE) else "another version",
            lrops=build_info["version"],
            path=_PACKAGE,
            carried=", ".join(carried),
            version=version,
            folder=folder,
            requirement=_requirement(carried, _flavour()),
            minor=_minor(version),
        )
    return tf


def tensorflow_folder(tf: Any) -> str:
    """The folder that TensorFlow was imported from."""
    folders = [*getattr(tf, "__path__", [])]  # an empty folder is imported without a __file__
    return os.path.dirname(getattr(tf, "__file__", None) or "") or (folders[0] if folders else "an unknown folder")


def library_paths(version: str) -> dict[str, str]:
    """The paths of the libraries for this TensorFlow version: "ops" (CPU and CUDA kernels) and "xla"."""
    folder = os.path.join(_PACKAGE, "_tf" + "_".join(version.split(".")[:2]))
    return {name: os.path.join(folder, f"_lrops_{name}.so") for name in ("ops", "xla")}


def op_library_path() -> str:
    """The path of the op library, for tools that load it by its path.

    Examples are tf2onnx (`--load_op_libraries`) and programs in C, Java or Go (`TF_LoadLibrary`). A Python program
    does not need the path: `import lrops` loads the library.

    Returns:
        The absolute path of the library with the CPU and CUDA kernels. It fits the installed TensorFlow's minor only.

    Raises:
        ImportError: TensorFlow is missing, or this installation carries no library for it. The message says what was
            found and how to cure it.

    Examples:
        >>> import lrops, os
        >>> os.path.basename(lrops.op_library_path())
        '_lrops_ops.so'
    """
    return os.path.abspath(library_paths(import_tensorflow().__version__)["ops"])


def refuse_second_copy(paths: list[str]) -> None:
    """Raises if another copy of the libraries is loaded. Registering the same op with XLA twice ends the process."""
    ours = {os.path.realpath(path) for path in paths}
    names = "|".join(re.escape(os.path.basename(path)) for path in ours)
    with open("/proc/self/maps", "rb") as maps:  # it writes "(deleted)" behind a file that was replaced
        lines = [fields[5].rstrip(b"\n") for line in maps if len(fields := line.split(maxsplit=5)) == 6]
    for other in set(map(os.fsdecode, lines)) - ours:  # a file name need not be UTF-8
        if re.fullmatch(rf"(?s).*/({names})( \(deleted\))?", other):
            raise refusal("loaded already", loaded=other, path=_PACKAGE)


def _in_utf8(path: str) -> str:
    """A path of this file in UTF-8, which TensorFlow requires. Linux allows any bytes in a path."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"  # kept open, or another file would get this name
    return path


@functools.cache
def load_ops() -> Any:
    """Loads the ops of lrops and their kernels into TensorFlow.

    `import lrops` calls it. A process must import lrops before it opens a SavedModel, or runs a graph, that contains an
    op of lrops.

    Returns:
        The module of generated op wrappers, such as `lrops_warmup_decay`. Later calls return the same module.

    Raises:
        ImportError: TensorFlow is missing, no library fits it, or a library is missing or broken. The message says what
            was found and how to cure it.

    Examples:
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
        with contextlib.suppress(KeyError):  # registered by an earlier import of lrops in this process
            tf.no_gradient(op)  # its input is an integer
    return modules["ops"]


def _own_folder() -> str:
    """The folder of TensorFlow, also before its import, or if that failed."""
    imported = sys.modules.get("tensorflow")
    spec = None if imported else importlib.util.find_spec("tensorflow")
    folders = (spec and spec.submodule_search_locations) or [tensorflow_folder(imported)]
    return folders[0]


def distributions() -> dict[str, str]:
    """The installed distributions that own the `tensorflow` of this process, such as {"tensorflow-cpu": "2.21.0"}.

    A custom build may have any name. A distribution whose folder is hidden by another one is left out.
    """
    found: dict[str, str] = {}
    imported = os.path.realpath(_own_folder())
    for distribution in importlib.metadata.distributions():
        packages = (distribution.read_text("top_level.txt") or "").split()
        record = distribution.read_text("RECORD") or ""
        if "tensorflow" in packages or re.search(r"^tensorflow/__init__\.py,", record, re.MULTILINE):
            own = str(distribution.locate_file("tensorflow"))
            # An editable or split installation keeps its metadata in another folder than the package.
            if not os.path.isdir(own) or os.path.realpath(own) == imported:
                found.setdefault(distribution.metadata["Name"].replace("_", "-"), distribution.version)
    return found
