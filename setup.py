"""Hands the build to CMake, and writes the metadata that pyproject.toml cannot compute.

LROPS_LIBRARIES is a folder of libraries that tools/wheels.py has built. Without it, they are built for one minor.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "cmake"))

from backend import to_build_for  # noqa: E402
from pyproject import PROJECT, cmake_facts, group, tensorflow  # noqa: E402

LIBRARIES = os.environ.get("LROPS_LIBRARIES", "")
FOLDER, VERSION = ("", "") if LIBRARIES else to_build_for()
VERSIONS = Path(LIBRARIES, "TENSORFLOW").read_text().split(", ") if LIBRARIES else [VERSION]


def range_of(versions: list[str]) -> str:
    """The version part of a requirement, such as ">=2.18,<2.22". A pre-release is for those who ask for it."""
    # The part after a plus names who built it.
    releases = [version for version in versions if not re.search("rc|dev", version.partition("+")[0])]
    if not releases:
        return f"=={versions[-1].partition('+')[0]}"
    minors = sorted({tuple(int(part) for part in version.split(".")[:2]) for version in releases})
    (major, first), (_, last) = minors[0], minors[-1]
    missing = [f"!={major}.{minor}.*" for minor in range(first, last) if (major, minor) not in minors]
    return ",".join([f">={major}.{first}", f"<{major}.{last + 1}", *missing])


def readme() -> str:
    """README.md with the repository's address before each relative link and picture, for a package index."""
    source = PROJECT["project"]["urls"]["Source"]
    raw = source.replace("//github.com/", "//raw.githubusercontent.com/")

    def absolute(match):
        picture = match[2].endswith((".png", ".svg"))
        return match[1] + (f"{raw}/main/" if picture else f"{source}/blob/main/") + match[2]

    text = (ROOT / "README.md").read_text("utf-8")
    return re.sub(r"""(\]\(|\b(?:src|srcset|href)=")(?![a-z]+:|#)([^\s()"]+)""", absolute, text)


# Keep libraries that an earlier build made for another TensorFlow out of the wheel.
for folder in ROOT.glob("build/lib*/lrops/_tf*"):
    shutil.rmtree(folder)

setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmake_source_dir=".",
    cmake_args=[
        *cmake_facts(),
        f"-DLROPS_LIBRARIES={LIBRARIES}",
        f"-DTensorFlow_ROOT={Path(FOLDER).parent}",
    ],
    # Not `dependencies`: tensorflow and tensorflow-cpu install over each other, so the choice must be the user's.
    extras_require={
        "cpu": tensorflow(range_of(VERSIONS)),
        "cuda": [f"tensorflow[and-cuda]{range_of(VERSIONS)}"],
        "plot": group("plot"),
    },
)
