"""Compiles the CUDA kernel with NVRTC to one PTX text, as a C++ header that the op library embeds.

Run by cmake/Cuda.cmake with the header to write, or without, to say what it would make; called by the tests. It must
not know TensorFlow. This file is where the target and the least driver stand: everything else asks.
"""

import argparse
import ctypes
import importlib.metadata
import re
import sys
from pathlib import Path

from pyproject import requirement

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "cc" / "kernels" / "warmup_cosine.cu"
PACKAGE = "nvidia-cuda-nvrtc-cu12"
NVRTC = re.search(r"==([\d.]+)", requirement(PACKAGE))[1]
# PTX runs on drivers as new as the compiler that made it. So it is made by the first CUDA 12, whose driver is the
# oldest that the CUDA wheel of TensorFlow takes, and for the first architecture that this compiler knows.
PTX, ARCHITECTURE, DRIVER = "8.0", "compute_50", 525
FACTS = f"PTX {PTX} for {ARCHITECTURE} and newer, driver >= {DRIVER}"


def find_nvrtc() -> tuple[str, Path]:
    """The version and the library of the NVRTC that this Python has; PackageNotFoundError where it has none."""
    package = importlib.metadata.distribution(PACKAGE)
    files = [Path(package.locate_file(file)) for file in package.files or ()]
    builtins, library = (
        next(file for file in files if file.name.startswith(name)) for name in ("libnvrtc-builtins.so", "libnvrtc.so")
    )
    ctypes.CDLL(str(builtins))  # the library looks for it by name, and so finds it loaded
    return package.version, library


def compile_ptx(library: Path, source: Path = SOURCE) -> str:
    """The PTX of `source`. RuntimeError with the compiler's words where it has any, a warning included."""
    nvrtc = ctypes.CDLL(str(library))
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p

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


def header(ptx: str) -> str:
    """The C++ header that embeds `ptx`."""
    return f"""// Made by cmake/compile_ptx.py. Included by kernels/cuda_driver.cc.
inline constexpr char kPtx[] = R"ptx({ptx})ptx";
inline constexpr char kLeastDriver[] = "{DRIVER}";
"""


def main():
    """Prints FACTS or why there can be no PTX; writes the header where one is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("header", type=Path, nargs="?")
    arguments = parser.parse_args()
    cure = f"run `pip install {PACKAGE}=={NVRTC}`"
    try:
        version, library = find_nvrtc()
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{PACKAGE} is not installed: {cure}")
    if version != NVRTC:
        sys.exit(f"{PACKAGE} must be {NVRTC}, for drivers from {DRIVER} on, and is {version}: {cure}")
    if arguments.header:
        ptx = compile_ptx(library)
        if f"\n.version {PTX}\n" not in ptx:
            sys.exit(f"{PACKAGE} {version} must make PTX {PTX}, as users are told. Received:\n{ptx[:500]}")
        arguments.header.write_text(header(ptx))
    print(FACTS)


if __name__ == "__main__":
    main()
