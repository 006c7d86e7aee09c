"""Loads the compiled libraries that fit the installed TensorFlow, or raises an ImportError that names the fix.

It looks in the package's own folder only. No environment variable can make it load another library.
"""

import contextlib
import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import re
import struct
import sys
from typing import Any

_PRERELEASE = re.compile("rc|dev")
_REINSTALL = "pip install --force-reinstall --no-deps --no-cache-dir"
_AGAIN = f"install lrops again: run `{_REINSTALL} .` in its clone, or name its wheel file instead of the dot"
_BUILD = f"run `{_REINSTALL} .` in a clone of lrops, which builds it on this system, for the installed TensorFlow"
# Each reason why lrops cannot be imported: what is wrong, also a heading in docs/troubleshooting.md, and the fix.
CAUSES = {
    "no Linux": ("lrops runs on Linux only, and this system is {system}", "use Linux, a container or WSL 2"),
    "missing file": ("lrops is installed without its file {path}", _AGAIN),
    "damaged file": (
        "lrops cannot load its library {path}: the file is damaged, or it was built for another processor",
        _AGAIN,
    ),
    "newer system": (
        "lrops cannot load its library {path}: it was built on a newer system than this one ({reported})",
        _BUILD,
    ),
    "another build": (
        "lrops cannot load its library {path}: the installed TensorFlow has the right version, but it is another build "
        "than the one lrops was compiled for ({reported})",
        _BUILD,
    ),
    "other": (
        "lrops cannot load its library {path} ({reported})",
        "docs/troubleshooting.md lists what such reports mean, and what to do",
    ),
    "second copy": (
        "lrops is already loaded in this process (from {loaded}); it cannot load a second copy (from {path})",
        "restart Python",
    ),
    "no TensorFlow": ("lrops needs TensorFlow, and none is installed", "run {fix}"),
    "empty TensorFlow": (
        "lrops needs TensorFlow, and the `tensorflow` that Python finds ({path}) is the empty folder of a half-removed "
        "installation",
        "run `pip install --force-reinstall --no-cache-dir '{requirement}'`",
    ),
    "another version": (
        "this lrops ({lrops}, in {path}) is built for TensorFlow {carried} and found TensorFlow {version} (in "
        "{folder}), whose binary interface differs",
        f"run `pip install '{{requirement}}'`; or keep your TensorFlow, and {_BUILD}",
    ),
}


def import_error(cause: str, **facts: Any) -> ImportError:
    """The error for one of `CAUSES`. The facts fill the braces in its sentences."""
    return ImportError("{}: {}.".format(*CAUSES[cause]).format(**facts))


def library_error(path: str, reported: object) -> ImportError:
    """The error for a library that the system did not load. What the system reported selects the cause."""
    cause, text = "other", str(reported)
    if re.search(r"version `(GLIBC|GLIBCXX|CXXABI|GCC)_[^']*' not found", text):
        cause = "newer system"
    elif re.search(r"_lrops_\w+\.so: undefined symbol|libtensorflow_\w+\.so\.2", text):
        cause = "another build"
    return import_error(cause, path=path, reported=text)


def check_file(path: str) -> None:
    """Raises if a library is missing, not readable, or damaged.

    A full disk can cut a file short. Loading such a library would kill the process by a signal.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(64).ljust(64, b"\0")
            length = os.path.getsize(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise import_error("missing file", path=path) from error
    except OSError as error:
        raise library_error(path, error.strerror) from error
    # The table of the sections is the last part of an ELF file.
    magic, processor, sections, size, count = struct.unpack_from("<5s13xH20xQ10xHH", header)
    expected = {"x86_64": 62, "aarch64": 183}.get(platform.machine(), processor)
    if magic != b"\x7fELF\x02" or length < sections + size * count or processor != expected:
        raise import_error("damaged file", path=path)


if sys.platform != "linux":
    raise import_error("no Linux", system=platform.system())
_native = importlib.util.find_spec("lrops._native")
if _native is None or _native.origin is None:
    _file = f"_native{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    raise import_error("missing file", path=os.path.join(os.path.dirname(__file__), _file))
check_file(_native.origin)

try:
    from lrops._native import build_info as build_info
except (ImportError, UnicodeError) as error:  # CPython 3.13.0 loads nothing from a folder that is not named in UTF-8
    raise library_error(_native.origin, error) from error

_PACKAGE = os.path.dirname(_native.origin)


def supported_tensorflow() -> list[str]:
    """The TensorFlow versions that this installation has libraries for: "2.21", or "2.22.0rc0" for a pre-release."""
    versions = build_info["tensorflow"].split(", ")
    return [
        _compatible(version) for version in versions if os.path.isdir(os.path.dirname(library_paths(version)["ops"]))
    ]


def _compatible(version: str) -> str:
    """The name of all versions with the same binary interface as `version`.

    That is the minor of a release, such as "2.21", and a pre-release's own version. Text after a plus, such as in
    2.21.0+archer2, names the builder. TensorFlow writes 2.22.0-rc0 and 2.22.0-dev20261101; pip 2.22.0rc0 and
    2.22.0.dev20261101.
    """
    public = version.partition("+")[0].replace("-rc", "rc").replace("-dev", ".dev")
    return public if _PRERELEASE.search(public) else ".".join(public.split(".")[:2])


def _requirement(flavour: str | None = None) -> str:
    """The argument of `pip install` for the newest TensorFlow that is carried. A release wins over a pre-release.

    The flavour is "-cpu", "[and-cuda]" or nothing; by default it is that of the installed TensorFlow.
    """
    if flavour is None:
        installed = distributions()
        flavour = "-cpu" if installed and all(name.endswith("-cpu") for name in installed) else ""
    carried = supported_tensorflow()
    newest = ([version for version in carried if not _PRERELEASE.search(version)] or carried)[-1]
    if _PRERELEASE.search(newest):
        return f"{'tf-nightly' if 'dev' in newest else 'tensorflow'}{flavour}=={newest}"
    return f"tensorflow{flavour}=={newest}.*"


def import_tensorflow() -> Any:
    """Imports and returns TensorFlow; raises an ImportError with the fix if no library here fits it."""
    carried = supported_tensorflow()
    if not carried:
        raise import_error("missing file", path=os.path.join(_PACKAGE, "_tf*", "_lrops_ops.so"))
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        flavours = ("-cpu", "[and-cuda]") if platform.machine() == "x86_64" else ("",)  # for ARM64 there is one only
        commands = [f"`pip install '{_requirement(flavour)}'`" for flavour in flavours]
        raise import_error("no TensorFlow", fix=", or, for an NVIDIA GPU, ".join(commands)) from error
    version = getattr(tf, "__version__", None)
    if version is None:
        raise import_error("empty TensorFlow", path=tf.__path__[0], requirement=_requirement())
    # A library that was built for another minor may load and then crash the process.
    if _compatible(version) not in carried:
        built = {"lrops": build_info["version"], "path": _PACKAGE, "carried": ", ".join(carried)}
        found = {"version": version, "folder": os.path.dirname(tf.__file__), "requirement": _requirement()}
        raise import_error("another version", **built, **found)
    return tf


def distributions() -> dict[str, str]:
    """The installed distributions that own the `tensorflow` that is imported, such as {"tensorflow-cpu": "2.21.0"}.

    It imports nothing. A custom build may have any name. A distribution whose folder another one hides is left out.
    """
    found: dict[str, str] = {}
    spec = importlib.machinery.PathFinder.find_spec("tensorflow")
    folders = [os.path.realpath(folder) for folder in spec and spec.submodule_search_locations or ()]
    for distribution in importlib.metadata.distributions():
        own = os.path.realpath(str(distribution.locate_file("tensorflow")))
        if own in folders and "\ntensorflow/__init__.py," in f"\n{distribution.read_text('RECORD')}":
            found.setdefault(distribution.metadata["Name"].replace("_", "-"), distribution.version)
    return found


def library_paths(version: str) -> dict[str, str]:
    """The paths of the libraries for this TensorFlow version: "ops" (CPU and CUDA kernels) and "xla"."""
    folder = os.path.join(_PACKAGE, "_tf" + "_".join(version.split(".")[:2]))
    return {name: os.path.join(folder, f"_lrops_{name}.so") for name in ("ops", "xla")}


def op_library_path() -> str:
    """The path of the op library, for tf2onnx (`--load_op_libraries`) and programs in C, Java or Go (`TF_LoadLibrary`).

    A Python program does not need the path: `import lrops` loads the library.

    Returns:
        The absolute path of the library with the CPU and CUDA kernels. It fits the installed TensorFlow's minor only.

    Raises:
        ImportError: TensorFlow is missing, or no library fits it. The message names what was found, and the fix.

    Examples:
        >>> import lrops, os
        >>> os.path.basename(lrops.op_library_path())
        '_lrops_ops.so'
    """
    return os.path.abspath(library_paths(import_tensorflow().__version__)["ops"])


def check_second_copy(paths: list[str]) -> None:
    """Raises if another copy of the libraries is loaded. Registering the same op with XLA twice ends the process."""
    ours = {os.path.realpath(path) for path in paths}
    names = "|".join(re.escape(os.path.basename(path)) for path in ours)
    with open("/proc/self/maps", "rb") as maps:  # it writes "(deleted)" after a file that was replaced
        mapped = {os.fsdecode(line.rstrip(b"\n").split(maxsplit=5)[-1]) for line in maps}  # not always UTF-8
    for other in mapped - ours:
        if re.fullmatch(rf"(?s).*/({names})( \(deleted\))?", other):
            raise import_error("second copy", loaded=other, path=_PACKAGE)


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
        ImportError: TensorFlow is missing, no library fits it, or a library is missing or broken. The message names
            what was found, and the fix.

    Examples:
        >>> import lrops
        >>> lrops.load_ops().lrops_warmup_decay.__name__
        'lrops_warmup_decay'
    """
    tf = import_tensorflow()
    modules, paths = {}, library_paths(tf.__version__)
    check_second_copy(list(paths.values()))
    for name, path in paths.items():
        check_file(path)
        try:
            modules[name] = tf.load_op_library(_in_utf8(path))
        except (tf.errors.OpError, OSError) as error:
            raise library_error(path, getattr(error, "message", error)) from error
    for op in ("Lrops>WarmupDecay", "Lrops>WarmupInverseSqrt", "Lrops>WarmupCosineRestarts"):
        with contextlib.suppress(KeyError):  # registered by an earlier import of lrops in this process
            tf.no_gradient(op)  # its input is an integer
    return modules["ops"]
