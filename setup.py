"""Hands the build to CMake, and names the TensorFlow distributions that users may choose from.

Called by pip through pyproject.toml, also before the build requirements are installed: it must not import TensorFlow.
"""

import re
from pathlib import Path

from setuptools import setup

PYPROJECT = (Path(__file__).parent / "pyproject.toml").read_text()
VERSION = re.search(r'^version = "(.+)"', PYPROJECT, re.MULTILINE)[1]
TENSORFLOW = re.search(r'"tensorflow-cpu==(\d+\.\d+)\.\*"', PYPROJECT)[1]
PLOT = ["matplotlib>=3.8"]
EXAMPLE = [*PLOT, "scikit-learn>=1.4", "tqdm>=4.66"]

setup(
    cmake_source_dir=".",
    cmake_args=[f"-DLROPS_VERSION={VERSION}", f"-DLROPS_TENSORFLOW={TENSORFLOW}"],
    # Not `dependencies`: tensorflow and tensorflow-cpu install over each other, so the choice must be the user's.
    extras_require={
        "cpu": [f"tensorflow-cpu=={TENSORFLOW}.*"],
        "cuda": [f"tensorflow[and-cuda]=={TENSORFLOW}.*"],
        "plot": PLOT,
        "demo": EXAMPLE,
        # The last is ptxas, which assembles the PTX of the CUDA kernel for cards that no test machine has.
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "mpmath>=1.3",
            "optax>=0.2",
            *EXAMPLE,
            "nvidia-cuda-nvcc-cu12==12.9.*",
        ],
    },
)
