"""The build backend that pyproject.toml names: scikit-build-core's, for the TensorFlow of the user's environment."""

import functools
import gzip
import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from pyproject import MINORS, ROOT, VERSION, commit, git, group, tensorflow

if sys.platform != "linux":
    sys.exit(f"lrops needs Linux, and this is {sys.platform}: on Windows, use WSL 2; on macOS, a Linux container.")

# The minor to build for, if it is not the installed one, or if pyproject.toml does not list it. Such as 2.22.
WANTED = os.environ.get("LROPS_TENSORFLOW", "")


@functools.cache
def installed() -> list[str]:
    """Folder and version of the TensorFlow to build for; empty if there is none.

    A build in isolation sees only what it asked for. Without the variables by which pip hides it, Python shows the
    environment that pip installs into. uv and `build` use another environment, where this finds nothing.
    """
    shown = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONNOUSERSITE")}
    for environment in (os.environ, shown):
        command = [sys.executable, ROOT / "cmake/find_tensorflow.py"]
        if said := subprocess.check_output(command, env=environment, text=True).splitlines():
            return said
    return []


def to_build_for() -> list[str]:
    """`installed()`, if lrops can be built for it. If not, the build ends."""
    minors = [WANTED] if WANTED else MINORS
    fix = f"run `pip install tensorflow-cpu=={minors[-1]}.*`"
    if not installed():
        sys.exit(
            f"lrops is built for a TensorFlow, and {sys.executable} has none: {fix}, or build with pip's isolation."
        )
    minor = ".".join(installed()[1].split(".")[:2])
    if minor not in minors:
        sys.exit(
            f"lrops builds for TensorFlow {', '.join(minors)}, and {sys.executable} has {installed()[1]}: {fix}, or "
            f"set LROPS_TENSORFLOW={minor} to build for it all the same, and then run `python -m lrops doctor`."
        )
    return installed()


def get_requires_for_build_wheel(settings=None):
    """The group `build`, and TensorFlow unless the environment has the one to build for."""
    if installed() and (not WANTED or installed()[1].startswith(f"{WANTED}.")):
        to_build_for()
        return group("build")
    return group("build") + tensorflow(f"=={WANTED or MINORS[-1]}.*")


def get_requires_for_build_sdist(settings=None):
    """The group `build`; no TensorFlow."""
    return group("build")


def _hook(name):
    """A hook of scikit-build-core, which is imported only when it runs: the group `build` brings it."""

    def hook(*arguments):
        from scikit_build_core.setuptools import build_meta

        return getattr(build_meta, name)(*arguments)

    return hook


get_requires_for_build_editable = get_requires_for_build_wheel
build_wheel, build_editable = _hook("build_wheel"), _hook("build_editable")
prepare_metadata_for_build_wheel = _hook("prepare_metadata_for_build_wheel")
prepare_metadata_for_build_editable = _hook("prepare_metadata_for_build_editable")


def build_sdist(folder, settings=None):
    """An archive of the files that git tracks, with the commit. The same commit always gives the same bytes."""
    files = git("ls-files", "-z")
    if files is None:
        sys.exit(f"lrops: an sdist holds the files that git tracks, and {ROOT} is no git checkout: make one.")
    with tempfile.TemporaryDirectory() as libraries:
        Path(libraries, "TENSORFLOW").write_text(", ".join(MINORS))  # it can be built for each
        os.environ["LROPS_LIBRARIES"] = libraries
        info = Path(libraries, prepare_metadata_for_build_wheel(libraries), "METADATA").read_bytes()
    name, when = f"lrops-{VERSION}", int(git("log", "-1", "--format=%ct"))
    contents = {path: (ROOT / path).read_bytes() for path in files.strip("\0").split("\0")}
    with gzip.GzipFile(Path(folder, f"{name}.tar.gz"), "wb", mtime=when) as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, content in sorted((contents | {"PKG-INFO": info, "COMMIT": f"{commit()}\n".encode()}).items()):
                member = tarfile.TarInfo(f"{name}/{path}")
                member.size, member.mtime = len(content), when
                member.mode = 0o755 if os.access(ROOT / path, os.X_OK) else 0o644
                archive.addfile(member, BytesIO(content))
    return f"{name}.tar.gz"
