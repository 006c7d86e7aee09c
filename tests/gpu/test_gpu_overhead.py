"""Tries benchmarks/gpu_overhead.py as far as possible without a GPU, so that it works at the first try on one."""

import ctypes
import importlib.util
from pathlib import Path
from unittest import mock

import gpu_overhead
import toolchain
from processes import run_process, run_snippet


def test_its_kernels_assemble_and_the_large_one_is_large(tmp_path):
    sizes = {}
    for name, text in {"empty": gpu_overhead.EMPTY, "large": gpu_overhead.large()}.items():
        (tmp_path / f"{name}.ptx").write_bytes(text)
        done = run_process(toolchain.ptxas(), "--gpu-name=sm_90", "-o", tmp_path / name, tmp_path / f"{name}.ptx")
        assert done.returncode == 0, done.stderr
        sizes[name] = (tmp_path / name).stat().st_size
    assert sizes["large"] - sizes["empty"] > 200_000


def test_the_rows_of_the_kernels(monkeypatch):
    """Of a GPU on which a launch takes as many nanoseconds as its PTX has letters."""
    cuda = mock.Mock()
    cuda.new.return_value = ctypes.c_void_p(4096)
    cuda.kernel = lambda ptx, name: ptx if b".entry " + name in ptx else None
    cuda.nanoseconds = lambda *kernels: sum(len(ptx) for ptx, _ in kernels)
    monkeypatch.setattr(gpu_overhead, "Cuda", lambda: cuda)
    times = {"empty kernel": len(gpu_overhead.EMPTY), "scalar kernel": toolchain.PTX.stat().st_size}
    expected = [
        ("d", f"{name}{after}", f"{time} ns", "")
        for name, time in times.items()
        for after in ("", ", after a large one")
    ]
    assert list(gpu_overhead.kernel_rows()) == expected


def test_it_says_that_pytest_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ((_, _, said, _),) = gpu_overhead.bit_rows()
    assert said == "not run: pytest is not installed: run `pip install pytest`"


def test_it_needs_a_gpu(tmp_path):
    done = run_snippet(Path(gpu_overhead.__file__), folder=tmp_path, CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 1
    assert "gpu_overhead.py needs a GPU" in done.stderr
