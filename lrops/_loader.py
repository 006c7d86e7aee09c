"""Finds the compiled libraries for the installed TensorFlow, loads them, and says what to do if it cannot.

It looks beside the package and nowhere else: no environment variable can put another library in its place.
"""

import functools
import importlib.metadata
import importlib.util
import os
import re
import struct
from typing import Any

_PRERELEASE = re.compile("rc|dev")
_REINSTALL = "run `pip install --force-reinstall --no-deps lrops`"


def refuse_truncated(path: str) -> None:
    """Refuses a library that was cut short, as a full disk leaves it: to load it would end the process by a signal."""
    try:
        with open(path, "rb") as file:
            header = file.read(64).ljust(64, b"\0")
    except OSError as error:
        raise ImportError(
            f"lrops cannot read its library {path} ({error.strerror}): make it readable for this user, "
            "`chmod -R a+rX` on the folder lrops in site-packages."
        ) from error
    if header[:5] != b"\x7fELF\x02":
        raise ImportError(f"lrops cannot load its library {path}: it is not a 64-bit ELF library: {_REINSTALL}.")
    (section_headers,) = struct.unpack_from("<Q", header, 40)  # they end the file
    size, count = struct.unpack_from("<HH", header, 58)
    if os.path.getsize(path) < section_headers + size * count:
        raise ImportError(f"lrops cannot load its library {path}: the file is cut short: {_REINSTALL}.")


if not os.path.isdir(os.path.dirname(__file__)):
    raise ImportError(
        f"lrops cannot be imported from an archive ({__file__}): the system loads its libraries from files. Unpack it, "
        "or install it with pip."
    )
_native = importlib.util.find_spec("lrops._native")
if _native is None or _native.origin is None:
    raise ImportError(
        "lrops was installed without its compiled module, or it was built for another Python: "
        f"{_REINSTALL}. In a source checkout run `make dev`, or `pip install .`."
    )
refuse_truncated(_native.origin)

from lrops._native import build_info as build_info  # noqa: E402

_PACKAGE = os.path.dirname(_native.origin)


def supported_tensorflow() -> list[str]:
    """What this installation carries libraries for: TensorFlow's minors, as "2.21"; of pre-releases, "2.22.0rc0"."""
    built_for = build_info["tensorflow"].split(", ")
    exactly = {_minor(version): version for version in built_for if _PRERELEASE.search(version)}
    folders = (name for name in os.listdir(_PACKAGE) if name.startswith("_tf"))
    minors = sorted(tuple(int(part) for part in name[3:].split("_")) for name in folders)
    return [exactly.get(name, name) for name in (f"{major}.{minor}" for major, minor in minors)]


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _requirement(carried: list[str], flavour: str = "") -> str:
    """What pip is told, to install the newest that is carried: a release before any pre-release."""
    newest = ([version for version in carried if not _PRERELEASE.search(version)] or carried)[-1]
    if _PRERELEASE.search(newest):
        return f"{'tf-nightly' if 'dev' in newest else 'tensorflow'}{flavour}=={newest}"
    return f"tensorflow{flavour}=={newest}.*"


def import_tensorflow() -> Any:
    """TensorFlow, where this installation carries libraries for it; ImportError with the cure where not."""
    carried = supported_tensorflow()
    if not carried:
        raise ImportError(f"lrops was installed without its libraries in {_PACKAGE}: {_REINSTALL}.")
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise ImportError(
            "lrops needs TensorFlow, and none is installed: run `pip install 'lrops[cpu]'` "
            "(tensorflow-cpu) or `pip install 'lrops[cuda]'` (tensorflow with CUDA)."
        ) from error
    version = getattr(tf, "__version__", None)
    if version is None:
        raise ImportError(
            f"lrops needs TensorFlow, and the `tensorflow` that Python finds ({tf.__path__}) is an empty "
            "folder, as a half-removed installation leaves: run `pip install --force-reinstall "
            f"{_requirement(carried, '-cpu')}`."
        )
    # A library built for another minor may load and then crash the process: compare before loading. A pre-release is
    # like no other; pip writes 2.22.0rc0 and 2.22.0.dev20261101 for its 2.22.0-rc0 and 2.22.0-dev20261101.
    name = version.replace("-rc", "rc").replace("-dev", ".dev")
    if (name if _PRERELEASE.search(name) else _minor(name)) not in carried:
        raise ImportError(
            f"this lrops ({build_info['version']}) is built for TensorFlow {', '.join(carried)} and "
            f"found TensorFlow {version}, whose binary interface differs: run `pip install "
            f"'{_requirement(carried)}'` (or its -cpu flavour), or build lrops for yours from its "
            f"source with `LROPS_TENSORFLOW={_minor(version)} pip install --no-build-isolation .`"
        )
    return tf


def library_paths(version: str) -> dict[str, str]:
    """Where the libraries for this TensorFlow version are, by name: "ops" (CPU, GPU) and "xla"."""
    folder = os.path.join(_PACKAGE, "_tf" + "_".join(version.split(".")[:2]))
    return {name: os.path.join(folder, f"_lrops_{name}.so") for name in ("ops", "xla")}


def refuse_second_copy(paths: list[str]) -> None:
    """Refuses a second copy of the libraries: to register the same op with XLA again ends the process."""
    ours = {os.path.realpath(path) for path in paths}
    names = "|".join(re.escape(os.path.basename(path)) for path in ours)
    with open("/proc/self/maps") as maps:  # which marks a file that was replaced as deleted
        loaded = {fields[5].strip() for line in maps if len(fields := line.split(maxsplit=5)) == 6}
    for other in loaded - ours:
        if re.fullmatch(rf".*/({names})( \(deleted\))?", other):
            raise ImportError(
                f"lrops is already loaded in this process, from {other}, and cannot be loaded again, from {_PACKAGE}, "
                "as after an update or from another folder. Start Python anew."
            )


@functools.cache
def load_ops() -> Any:
    """Loads the ops of lrops and their kernels into TensorFlow; `import lrops` does it already.

    Call it, or import lrops, before you open a SavedModel or run a graph that holds one of them.

    Returns:
        The module of generated wrappers, with `lrops_warmup_cosine_decay` and `lrops_warmup_cosine_restarts`. A second
        call does nothing more.

    Raises:
        ImportError: TensorFlow is missing or of another minor, or a library is missing or broken. The message says
            what was found and the command that cures it.

    >>> import lrops
    >>> lrops.load_ops().lrops_warmup_cosine_decay.__name__
    'lrops_warmup_cosine_decay'
    """
    tf = import_tensorflow()
    modules, paths = {}, library_paths(tf.__version__)
    refuse_second_copy(list(paths.values()))
    for name, path in paths.items():
        if not os.path.isfile(path):
            raise ImportError(f"lrops was installed without its library {path}: {_REINSTALL}.")
        refuse_truncated(path)
        try:
            modules[name] = tf.load_op_library(path)
        except (tf.errors.OpError, OSError) as error:
            raise ImportError(
                f"lrops cannot load its library {path} into TensorFlow {tf.__version__} "
                f"({distributions()}): {getattr(error, 'message', error)}. It was built elsewhere: {_REINSTALL}."
            ) from error
    return modules["ops"]


def distributions() -> str:
    """The TensorFlow that pip installed, as "tensorflow-cpu 2.21.0"."""
    names = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found) or "not installed by pip"
