"""Hands the build to CMake, and sets the TensorFlow requirement, which pyproject.toml cannot compute.

LROPS_LIBRARIES is a folder of libraries that tools/wheels.py has built. Without it, they are built for one minor.
LROPS_TENSORFLOW, such as 2.22, asks for a minor that pyproject.toml does not name.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "cmake"))

from pyproject import EXTRAS, MINORS, VERSION  # noqa: E402

LIBRARIES = os.environ.get("LROPS_LIBRARIES", "")
LEFT_BY_A_BUILD = {".git", ".docs", ".lint", ".venv", "build", "demo", "dist", "lrops.egg-info", "COMMIT", "PKG-INFO"}
BUILDABLE = os.environ.get("LROPS_TENSORFLOW") or ";".join(MINORS)


def carried() -> list[str]:
    """The TensorFlow versions of the wheel: those of LROPS_LIBRARIES, else the installed one, else the newest minor."""
    if LIBRARIES:
        return [path.read_text() for path in Path(LIBRARIES).glob("_tf*/TENSORFLOW")]
    owners = importlib.metadata.packages_distributions().get("tensorflow", [])
    return [importlib.metadata.version(name) for name in owners[:1]] or MINORS[-1:]


def tensorflow() -> str:
    """The version part of a requirement, such as ">=2.18,<2.22". A pre-release is for those who ask for it."""
    versions = carried()
    # The part after a plus names who built it.
    releases = [version for version in versions if not re.search("rc|dev", version.partition("+")[0])]
    if not releases:
        return f"=={versions[-1].partition('+')[0]}"
    minors = sorted({tuple(int(part) for part in version.split(".")[:2]) for version in releases})
    (major, first), (_, last) = minors[0], minors[-1]
    missing = [f"!={major}.{minor}.*" for minor in range(first, last) if (major, minor) not in minors]
    return ",".join([f">={major}.{first}", f"<{major}.{last + 1}", *missing])


def git(*arguments: str) -> str | None:
    """What git says about this checkout; None outside one, such as in an sdist that lies in another repository."""
    own = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, env=own
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit() -> str:
    """The commit of the sources: a file in an sdist, else what git says, else "unknown"."""
    if (ROOT / "COMMIT").exists():
        return (ROOT / "COMMIT").read_text().strip()
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or "unknown"


class Sdist(sdist):
    """An sdist of the files that git tracks, with the commit in a file."""

    def make_release_tree(self, base_dir, files):  # noqa: D102
        tracked = git("ls-files", "-z")
        if tracked is None:  # an unpacked sdist, or no git: all files except what a build leaves here
            paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
            kept = (
                path for path in paths if path.parts[0] not in LEFT_BY_A_BUILD and path.suffix not in (".so", ".pyc")
            )
            tracked = "\0".join(map(str, kept))
        super().make_release_tree(base_dir, tracked.strip("\0").split("\0"))
        Path(base_dir, "COMMIT").write_text(commit() + "\n")


# Keep libraries that an earlier build made for another TensorFlow out of the wheel.
for folder in ROOT.glob("build/lib*/lrops/_tf*"):
    shutil.rmtree(folder)

setup(
    cmake_source_dir=".",
    cmdclass={"sdist": Sdist},
    cmake_args=[
        f"-DLROPS_VERSION={VERSION}",
        f"-DLROPS_COMMIT={commit()}",
        f"-DLROPS_TENSORFLOW={BUILDABLE}",
        f"-DLROPS_LIBRARIES={LIBRARIES}",
    ],
    # Not `dependencies`: tensorflow and tensorflow-cpu install over each other, so the choice must be the user's.
    extras_require={
        "cpu": [
            f"tensorflow-cpu{tensorflow()}; platform_machine == 'x86_64'",
            f"tensorflow{tensorflow()}; platform_machine != 'x86_64'",  # the only one for ARM64, without CUDA
        ],
        "cuda": [f"tensorflow[and-cuda]{tensorflow()}"],
        **EXTRAS,
    },
)
