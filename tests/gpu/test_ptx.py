"""The committed PTX is what NVRTC makes of the .cu, and ptxas accepts it for every architecture."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import ptx
import pytest
import toolchain
from conftest import FOLDER
from processes import run_process

import lrops


@pytest.fixture(scope="module")
def nvrtc(tmp_path_factory):
    if platform.machine() != "x86_64":
        pytest.skip("NVRTC 12.0 has no build for this machine")
    try:
        return ptx.load_nvrtc(tmp_path_factory.mktemp("nvrtc"))
    except subprocess.CalledProcessError:
        if len(Path("/proc/net/route").read_text().splitlines()) > 1:
            raise
        pytest.skip("NVRTC cannot be installed without a network")


def test_make_ptx_writes_what_is_committed(nvrtc, tmp_path, monkeypatch):
    monkeypatch.setattr(ptx, "load_nvrtc", lambda folder: nvrtc)  # it is installed already
    monkeypatch.setattr(sys, "argv", ["ptx.py", "--output", str(tmp_path / "again.ptx")])
    ptx.main()
    assert (tmp_path / "again.ptx").read_bytes() == toolchain.PTX.read_bytes(), "run `make ptx` and commit the result"


def test_it_holds_the_kernels_and_the_library_carries_it():
    text = toolchain.PTX.read_text()
    names = ["lrops_warmup_decay", "lrops_warmup_inverse_sqrt", "lrops_warmup_cosine_restarts"]
    assert re.findall(r"\.entry (\w+)", text) == names
    assert not re.findall(r"^\.global.*", text, re.MULTILINE)
    library = Path(lrops.__file__).parent / FOLDER / "_lrops_ops.so"
    assert text.encode() in library.read_bytes()
    assert lrops.build_info["cuda"] == ptx.FACTS
    assert text.startswith(f"// {ptx.FACTS}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extern "C" __global__ void kernel() { int unused; }', "wrong.cu.*never referenced"),  # a warning
        ('#include "formula/no_such_file.h"', "NVRTC_ERROR_COMPILATION.*no_such_file.h"),
    ],
)
def test_a_word_of_nvrtc_is_an_error(nvrtc, tmp_path, text, said):
    (tmp_path / "wrong.cu").write_text(text + "\n")
    with pytest.raises(RuntimeError, match=f"(?s){said}"):
        ptx.compile_ptx(nvrtc, tmp_path / "wrong.cu")


def test_ptxas_assembles_it_for_every_architecture_it_knows(tmp_path):
    ptxas, least = toolchain.ptxas(), int(re.search(r"\d+", ptx.ARCHITECTURE)[0])
    listed = {int(number) for number in re.findall(r"'sm_(\d+)'", run_process(ptxas, "--help").stdout)}
    known = [architecture for architecture in sorted(listed) if architecture >= least]
    assert {70, 80, 90, 100, 103, 120, 121} <= set(known)
    for architecture in known:
        options = [f"--gpu-name=sm_{architecture}", "--warning-as-error", "--verbose", "-o", tmp_path / "x"]
        done = run_process(ptxas, *options, toolchain.PTX)
        assert done.returncode == 0, done.stderr
        # No array went to memory, and no register was spilled there.
        frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
        assert frames == [("0", "0", "0")] * 3, architecture
