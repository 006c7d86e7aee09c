"""The .cu under every compiler that can be had without a GPU, and the PTX that the library carries.

Run by pytest; what a machine lacks is skipped with its name. It must not know the launcher.
"""

import re
import subprocess
import sys

import compile_ptx
import pytest
import toolchain
from toolchain import ROOT

import lrops


def test_nvrtc_makes_the_ptx_that_the_library_carries():
    version, library = toolchain.nvrtc()
    ptx = compile_ptx.compile_ptx(library)
    assert re.findall(r"\.entry (\w+)", ptx) == ["lrops_warmup_cosine", "lrops_warmup_cosine_restarts"]
    if version == compile_ptx.NVRTC:
        assert toolchain.embedded_ptx() == ptx


def test_a_warning_of_nvrtc_is_an_error(tmp_path):
    source = tmp_path / "warns.cu"
    source.write_text('extern "C" __global__ void kernel() { int unused; }\n')
    with pytest.raises(RuntimeError, match="(?s)warns.cu.*never referenced"):
        compile_ptx.compile_ptx(toolchain.nvrtc()[1], source)


def test_an_error_of_nvrtc_is_told(tmp_path):
    source = tmp_path / "fails.cu"
    source.write_text('#include "formula/no_such_file.h"\n')
    with pytest.raises(RuntimeError, match="(?s)NVRTC_ERROR_COMPILATION.*no_such_file.h"):
        compile_ptx.compile_ptx(toolchain.nvrtc()[1], source)


def test_nvcc_accepts_it_for_every_architecture_it_knows(tmp_path):
    nvcc = toolchain.compiler("nvcc", "NVCC")
    virtual = subprocess.run([nvcc, "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout.split()
    assert virtual
    targets = [f"-gencode=arch={name},code={name.replace('compute', 'sm')}" for name in virtual]
    options = ["-fatbin", "-std=c++17", "--Werror=all-warnings", f"-I{ROOT / 'cc'}", "-o", str(tmp_path / "x.fatbin")]
    done = subprocess.run([nvcc, *options, *targets, str(compile_ptx.SOURCE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("architecture", [70, 75, 80, 86, 89, 90, 100, 120])
def test_ptxas_assembles_the_embedded_ptx(architecture, tmp_path):
    source = tmp_path / "embedded.ptx"
    source.write_text(toolchain.embedded_ptx())
    options = [f"--gpu-name=sm_{architecture}", "--warning-as-error", "--verbose", "-o", str(tmp_path / "x.cubin")]
    done = subprocess.run([toolchain.ptxas(), *options, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # No array went to memory, and no register was spilled there.
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert frames == [("0", "0", "0")] * 2


def test_build_info_says_what_the_ptx_is():
    ptx = toolchain.embedded_ptx()
    version = re.search(r"^\.version (\S+)$", ptx, re.MULTILINE)[1]
    target = re.search(r"^\.target sm_(\d+)$", ptx, re.MULTILINE)[1]
    assert lrops.build_info["cuda"] == f"PTX {version} for compute_{target} and newer, driver >= {compile_ptx.DRIVER}"


def _configure(tmp_path, option, python):
    """What CMake says of cmake/Cuda.cmake alone. Where CUDA is off it returns before it needs a target."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(test LANGUAGES NONE)\n"
        f'set(CMAKE_CURRENT_SOURCE_DIR "{ROOT}")\nset(Python_EXECUTABLE "{python}")\n'
        f'include("{ROOT}/cmake/Cuda.cmake")\nmessage(STATUS "facts=${{LROPS_CUDA_FACTS}}")\n'
    )
    command = [toolchain.compiler("cmake"), "-S", tmp_path, "-B", tmp_path / "build", f"-DLROPS_CUDA={option}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def python_without_nvrtc(tmp_path):
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -E -S "$@"\n')
    script.chmod(0o755)
    return script


def test_auto_without_nvrtc_builds_without_cuda_and_says_why(tmp_path, python_without_nvrtc):
    code, said = _configure(tmp_path, "AUTO", python_without_nvrtc)
    assert code == 0 and "facts=none" in said
    assert "CUDA: off; nvidia-cuda-nvrtc-cu12 is not installed: run `pip install" in said


def test_on_without_nvrtc_fails_with_the_cure(tmp_path, python_without_nvrtc):
    code, said = _configure(tmp_path, "ON", python_without_nvrtc)
    assert code != 0
    assert f"run `pip install nvidia-cuda-nvrtc-cu12=={compile_ptx.NVRTC}`, or build with -DLROPS_CUDA=OFF" in said


def test_off_is_off(tmp_path):
    code, said = _configure(tmp_path, "OFF", sys.executable)
    assert code == 0 and "facts=none" in said
    assert "CUDA: off, as LROPS_CUDA=OFF asks" in said


def test_any_other_value_is_refused(tmp_path):
    code, said = _configure(tmp_path, "yes", sys.executable)
    assert code != 0
    assert "LROPS_CUDA must be AUTO, ON or OFF. Received: LROPS_CUDA=yes" in said
