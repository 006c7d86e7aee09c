"""Hands the build to CMake, and names the TensorFlow distributions that users may choose from.

Called by pip through pyproject.toml, also before the build requirements are installed: it must not import TensorFlow.
LROPS_LIBRARIES names a folder of libraries that cmake/wheels.py has built; without it, they are built for one minor.
LROPS_TENSORFLOW, as 2.22, is how a user asks for a minor that pyproject.toml does not name.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "cmake"))

from pyproject import MINORS, REQUIREMENTS, VERSION  # noqa: E402

LIBRARIES = os.environ.get("LROPS_LIBRARIES", "")
BUILDABLE = os.environ.get("LROPS_TENSORFLOW") or ";".join(MINORS)
PLOT = ["matplotlib>=3.8"]
PTXAS = "nvidia-cuda-nvcc-cu12==12.9.*"
EXAMPLE = [*PLOT, "scikit-learn>=1.4", "tqdm>=4.66"]


def carried() -> list[str]:
    """The TensorFlow versions of the wheel: those of LROPS_LIBRARIES, else the installed one, else the newest minor."""
    if LIBRARIES:
        facts = (path.read_text() for path in Path(LIBRARIES).glob("_tf*/facts.cmake"))
        return [re.search(r'TensorFlow_VERSION "(.+)"', text)[1] for text in facts]
    for name in ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu"):
        try:
            return [importlib.metadata.version(name)]
        except importlib.metadata.PackageNotFoundError:
            continue
    return MINORS[-1:]


def tensorflow() -> str:
    """What a requirement says after TensorFlow's name, as ">=2.18,<2.22". A pre-release is for those who ask for it."""
    versions = carried()
    releases = [version for version in versions if not re.search("rc|dev", version)]
    if not releases:
        return f"=={versions[-1]}"
    minors = sorted({tuple(int(part) for part in version.split(".")[:2]) for version in releases})
    (major, first), (_, last) = minors[0], minors[-1]
    missing = [f"!={major}.{minor}.*" for minor in range(first, last) if (major, minor) not in minors]
    return ",".join([f">={major}.{first}", f"<{major}.{last + 1}", *missing])


def commit() -> str:
    """The commit of the sources: a file in an sdist, else what git says, else "unknown"."""
    if (ROOT / "COMMIT").exists():
        return (ROOT / "COMMIT").read_text().strip()
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    own = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}  # not of a repository that lrops lies in
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, env=own).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class SdistWithCommit(sdist):
    """An sdist that knows the commit it was made from."""

    def make_release_tree(self, base_dir, files):  # noqa: D102
        super().make_release_tree(base_dir, files)
        Path(base_dir, "COMMIT").write_text(commit() + "\n")


setup(
    cmake_source_dir=".",
    cmdclass={"sdist": SdistWithCommit},
    cmake_args=[
        f"-DLROPS_VERSION={VERSION}",
        f"-DLROPS_COMMIT={commit()}",
        f"-DLROPS_TENSORFLOW={BUILDABLE}",
        f"-DLROPS_LIBRARIES={LIBRARIES}",
    ],
    # Not `dependencies`: tensorflow and tensorflow-cpu install over each other, so the choice must be the user's.
    extras_require={
        "cpu": [f"tensorflow-cpu{tensorflow()}"],
        "cuda": [f"tensorflow[and-cuda]{tensorflow()}"],
        "plot": PLOT,
        "demo": EXAMPLE,
        # ptxas assembles the PTX of the CUDA kernel for cards that no test machine has.
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "mpmath>=1.3",
            "optax>=0.2",
            *EXAMPLE,
            *REQUIREMENTS,  # the tests build without isolation
            PTXAS,
        ],
        # XLA's compiler for a GPU, which benchmarks/xla_gpu.py runs without one; beside TensorFlow's CUDA build.
        "xla-gpu": ["jax==0.9.1", "jax-cuda12-plugin==0.9.1", PTXAS],
    },
)
