"""The committed PTX is what NVRTC makes of the .cu, and ptxas accepts it for every architecture."""

import platform
import re
from pathlib import Path

import ptx
import pytest
import toolchain
from conftest import FOLDER
from processes import run_process, run_python

import lrops


@pytest.fixture(scope="module")
def nvrtc(tmp_path_factory):
    if platform.machine() != "x86_64":
        pytest.skip("NVRTC 12.0 has no build for this machine")
    return ptx.load_nvrtc(tmp_path_factory.mktemp("nvrtc"))


def test_make_ptx_writes_what_is_committed(tmp_path):
    if platform.machine() != "x86_64":
        pytest.skip("NVRTC 12.0 has no build for this machine")
    done = run_python(ptx.__file__, "--output", tmp_path / "again.ptx", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.ptx").read_bytes() == toolchain.PTX.read_bytes(), "run `make ptx` and commit the result"


def test_it_holds_the_kernels_and_nothing_else():
    text = toolchain.PTX.read_text()
    names = ["lrops_warmup_decay", "lrops_warmup_inverse_sqrt", "lrops_warmup_cosine_restarts"]
    assert re.findall(r"\.entry (\w+)", text) == names
    assert not re.findall(r"^\.global.*", text, re.MULTILINE)


def test_the_library_carries_it_and_build_info_says_what_it_is():
    library = Path(lrops.__file__).parent / FOLDER / "_lrops_ops.so"
    assert toolchain.PTX.read_bytes() in library.read_bytes()
    assert lrops.build_info["cuda"] == ptx.FACTS
    assert toolchain.PTX.read_text().startswith(f"// {ptx.FACTS}\n")


def test_a_warning_of_nvrtc_is_an_error(nvrtc, tmp_path):
    source = tmp_path / "warns.cu"
    source.write_text('extern "C" __global__ void kernel() { int unused; }\n')
    with pytest.raises(RuntimeError, match="(?s)warns.cu.*never referenced"):
        ptx.compile_ptx(nvrtc, source)


def test_an_error_of_nvrtc_is_told(nvrtc, tmp_path):
    source = tmp_path / "fails.cu"
    source.write_text('#include "formula/no_such_file.h"\n')
    with pytest.raises(RuntimeError, match="(?s)NVRTC_ERROR_COMPILATION.*no_such_file.h"):
        ptx.compile_ptx(nvrtc, source)


def architectures(ptxas):
    """Those that this ptxas lists, from PTX's own target on."""
    listed = re.findall(r"'sm_(\d+)'", run_process(ptxas, "--help").stdout)
    return sorted({int(number) for number in listed if int(number) >= int(re.search(r"\d+", ptx.ARCHITECTURE)[0])})


def test_ptxas_assembles_it_for_every_architecture_it_knows(tmp_path):
    ptxas = toolchain.ptxas()
    known = architectures(ptxas)
    assert {70, 80, 90, 100, 103, 120, 121} <= set(known)
    for architecture in known:
        options = [f"--gpu-name=sm_{architecture}", "--warning-as-error", "--verbose", "-o", tmp_path / "x"]
        done = run_process(ptxas, *options, toolchain.PTX)
        assert done.returncode == 0, done.stderr
        # No array went to memory, and no register was spilled there.
        frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
        assert frames == [("0", "0", "0")] * 3, architecture
