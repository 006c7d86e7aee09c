"""Compiles cc/kernels/learning_rate.cu to the PTX that is committed next to it. Run by `make ptx`.

PTX runs on drivers at least as new as the compiler that made it, and on cards at least as new as its target. So we use
the first CUDA 12, whose driver is the oldest that TensorFlow's CUDA wheels accept, and the oldest architecture that it
knows. Its NVRTC cannot be installed with TensorFlow's CUDA, so it goes into a temporary folder.
"""

import argparse
import ctypes
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "cc" / "kernels" / "learning_rate.cu"
NVRTC = "nvidia-cuda-nvrtc-cu12==12.0.140"
VERSION, ARCHITECTURE, DRIVER = "8.0", "compute_50", 525
# The first line of the PTX. CMake copies it into lrops.build_info, and the driver's version into an error message.
FACTS = f"PTX {VERSION} for {ARCHITECTURE} and newer, driver >= {DRIVER}"


def load_nvrtc(folder: Path) -> ctypes.CDLL:
    """Installs NVRTC into an empty folder and loads it."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), NVRTC]
    subprocess.run(pip, check=True)
    builtins, library = (next(folder.rglob(name)) for name in ("libnvrtc-builtins.so*", "libnvrtc.so*"))
    ctypes.CDLL(str(builtins))  # the library looks for it by name, and finds it already loaded
    nvrtc = ctypes.CDLL(str(library))
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    return nvrtc


def compile_ptx(nvrtc: ctypes.CDLL, source: Path = SOURCE) -> str:
    """The PTX of `source`. RuntimeError with the compiler's message if it reports an error or a warning."""

    def call(name, *arguments):
        code = getattr(nvrtc, name)(*arguments)
        return nvrtc.nvrtcGetErrorString(code).decode() if code else ""

    def text(what):
        size = ctypes.c_size_t()
        call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        call(f"nvrtcGet{what}", program, buffer)
        return buffer.value.decode()

    program = ctypes.c_void_p()
    call("nvrtcCreateProgram", ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
    options = [f"--gpu-architecture={ARCHITECTURE}", "--std=c++17", f"--include-path={ROOT / 'cc'}"]
    error = call(
        "nvrtcCompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*map(str.encode, options))
    )
    log = text("ProgramLog").strip()
    if error or log:
        raise RuntimeError(f"{source.name}: NVRTC says: {error}\n{log}")
    return text("PTX")


def without_unused_globals(ptx: str) -> str:
    """The text without the globals that no kernel reads, such as those of NVRTC's own <nv/target>."""

    def unused(line):
        name = re.match(r"\.global .*?(\w+)(\[\d+\])?( = .*)?;$", line)
        return name is not None and len(re.findall(rf"\b{name[1]}\b", ptx)) == 1

    return "".join(line for line in ptx.splitlines(keepends=True) if not unused(line.rstrip("\n")))


def main():
    """Writes the PTX."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=SOURCE.with_suffix(".ptx"), help="(%(default)s)")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        ptx = without_unused_globals(compile_ptx(load_nvrtc(Path(folder))))
    if f"\n.version {VERSION}\n.target {ARCHITECTURE.replace('compute', 'sm')}\n" not in ptx:
        sys.exit(f"{NVRTC} must make PTX {VERSION} for {ARCHITECTURE}, as users are told. Received:\n{ptx[:500]}")
    output.write_text(f"// {FACTS}\n// Made from {SOURCE.name} by {Path(__file__).name}: run `make ptx`.\n{ptx}")


if __name__ == "__main__":
    main()
