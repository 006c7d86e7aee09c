// A fake libcuda.so.1: it runs the kernels of the PTX on the host and logs every call. As in CUDA, a kernel belongs to
// no context, and a stream determines the context.
//
// A stream points to its context's address, and a context points to its number. fake_cuda.py controls the fake through
// the fake_* functions.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>

#include "ptx_of_the_test.h"

namespace {

using Context = unsigned long long;

constexpr int kInvalidValue = 1, kInvalidContext = 201, kNotFound = 500;

std::mutex mutex;
std::string log, image, failing_call;
int failing_code = 0;

// Logs a call and returns the error that the test wants of it.
template <class... Values>
int Enter(const char* call, const char* format, Values... values) {
  char text[256] = "";
  if constexpr (sizeof...(values) > 0) std::snprintf(text, sizeof text, format, values...);
  const std::lock_guard<std::mutex> lock(mutex);
  log += std::string(call) + text + "\n";
  return failing_call == call ? failing_code : 0;
}

// What cuGetErrorName and cuGetErrorString do. The driver does not know every code.
int Describe(const char* what, int error, std::string& kept, const char** text) {
  if (error == 701 || error == 720) return kInvalidValue;
  kept = what + std::to_string(error);
  *text = kept.c_str();
  return 0;
}

// CUDA does not promise to leave an output alone when it returns an error.
void* const kGarbage = reinterpret_cast<void*>(1);

}  // namespace

extern "C" {

void fake_fail(const char* call, int code) { failing_call = call, failing_code = code; }
const char* fake_log() { return log.c_str(); }
const char* fake_image() { return image.c_str(); }

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 12000, 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }

int cuGetErrorName(int error, const char** text) {
  static thread_local std::string name;
  return Describe("NAME_", error, name, text);
}

int cuGetErrorString(int error, const char** text) {
  static thread_local std::string words;
  return Describe("words of ", error, words, text);
}

int cuLibraryLoadData(void** library, const void* code, int*, void**, unsigned jit_count, int*, void**,
                      unsigned count) {
  *library = kGarbage;
  if (const int error = Enter("cuLibraryLoadData", "")) return error;
  if (jit_count != 0 || count != 0) return kInvalidValue;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // long enough for other threads to come
  image = static_cast<const char*>(code);
  *library = &image;
  return 0;
}

int cuLibraryGetKernel(void** kernel, void*, const char* name) {
  *kernel = kGarbage;
  if (const int error = Enter("cuLibraryGetKernel", " %s", name)) return error;
  const auto found = ptx::kernels.find(name);
  if (found == ptx::kernels.end()) return kNotFound;
  *kernel = reinterpret_cast<void*>(found->second);
  return 0;
}

int cuLaunchKernel(void* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void* stream, void** arguments, void** extra) {
  if (stream == nullptr) return kInvalidContext;  // none is current
  if (const int error =
          Enter("cuLaunchKernel", " stream=%p context=%llu grid=%u,%u,%u block=%u,%u,%u shared=%u", stream,
                **static_cast<Context**>(stream), grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes)) {
    return error;
  }
  if (grid_x == 0 || block_x == 0 || block_x > 1024 || extra != nullptr) return kInvalidValue;
  ptx::Run(reinterpret_cast<ptx::Kernel>(kernel), arguments, grid_x, block_x);
  return 0;
}

}  // extern "C"
