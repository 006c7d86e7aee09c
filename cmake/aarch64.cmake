# Builds for ARM64 on another machine, with Debian's g++-aarch64-linux-gnu. tools/wheels.py --machine aarch64 uses it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR env)  # CMake asks the Python of this machine, which needs no emulator
