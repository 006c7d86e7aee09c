"""The compilers of the tests in this folder, and the PTX that they try."""

import atexit
import functools
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import ptx_on_host
import pytest
import tensorflow as tf

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PTX = ROOT / "cc" / "kernels" / "learning_rate.ptx"


def shared_library(path, *arguments):
    """Builds a library from C++ files; the other arguments are options. Skips the test without a compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or pytest.skip("no C++ compiler on this machine")
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    command += [f"-I{ROOT / 'cc'}", f"-I{HERE}", f"-I{path.parent}"]
    done = subprocess.run([*command, "-o", path, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@functools.cache
def fake_gpu():
    """The path of libcuda.so.1, built once: the driver of fake_libcuda.cc, and the device of fake_gpu.cc over it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    ptx_on_host.write_header(PTX.read_text(), folder)
    options = ["-Wl,-soname,libcuda.so.1", "-isystem", tf.sysconfig.get_include()]
    shared_library(folder / "libcuda.so.1", HERE / "fake_gpu.cc", HERE / "fake_libcuda.cc", *options)
    return folder / "libcuda.so.1"


def preloading(library):
    """The environment of a process that loads this library first. LD_PRELOAD takes no path with a space."""
    folders = filter(None, [str(library.parent), os.environ.get("LD_LIBRARY_PATH")])
    return {"LD_PRELOAD": library.name, "LD_LIBRARY_PATH": os.pathsep.join(folders)}


def with_fake_gpu():
    """The environment in which a process can `import fake_gpu`."""
    library = fake_gpu()
    return preloading(library) | {
        "LROPS_TEST_GPU": str(library),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
    }


def ptxas():
    """The path of ptxas. Skips the test if there is none."""
    try:
        package = importlib.metadata.distribution("nvidia-cuda-nvcc-cu12")
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"no ptxas: {error}")
    return next(str(package.locate_file(file)) for file in package.files if file.name == "ptxas")
