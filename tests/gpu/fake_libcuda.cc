// A libcuda.so.1 for machines without one: it keeps CUDA's rules on contexts, runs the kernels of the PTX on the host,
// and logs every call. fake_cuda.py steers it through the fake_* functions.
//
// A stream is a pointer to its context's address, a context a pointer to its number. The null stream belongs to a
// context that is always there.
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ptx_of_the_test.h"

namespace {

using Context = unsigned long long;
struct Module {
  Context context;
};
struct Function {
  Context context;
  ptx::Kernel kernel;
};

constexpr int kInvalidValue = 1, kInvalidContext = 201, kInvalidHandle = 400, kNotFound = 500;
const std::map<int, std::pair<const char*, const char*>> kErrors = {
    {1, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {100, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {201, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {218, {"CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"}},
    {222, {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."}},
    {400, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {500, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {709, {"CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"}},
    {719, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}}};

std::mutex mutex;
std::string log, image, failing_call;
int failing_code = 0;
thread_local std::vector<Context*> current;
Context primary = 1;

Context* Of(void* stream) { return stream ? *static_cast<Context**>(stream) : &primary; }

// Logs a call and returns the error that the test wants of it.
template <class... Values>
int Enter(const char* call, const char* format, Values... values) {
  char text[256] = "";
  if constexpr (sizeof...(values) > 0) std::snprintf(text, sizeof text, format, values...);
  const std::lock_guard<std::mutex> lock(mutex);
  log += std::string(call) + text + "\n";
  return failing_call == call ? failing_code : 0;
}

}  // namespace

extern "C" {

void fake_fail(const char* call, int code) { failing_call = call, failing_code = code; }
const char* fake_log() { return log.c_str(); }
const char* fake_image() { return image.c_str(); }
int fake_depth() { return static_cast<int>(current.size()); }

int cuGetErrorName(int error, const char** text) {
  const auto found = kErrors.find(error);
  if (found == kErrors.end()) return kInvalidValue;
  *text = found->second.first;
  return 0;
}

int cuGetErrorString(int error, const char** text) {
  const auto found = kErrors.find(error);
  if (found == kErrors.end()) return kInvalidValue;
  *text = found->second.second;
  return 0;
}

int cuStreamGetCtx(void* stream, void** context) {
  if (const int error = Enter("cuStreamGetCtx", "")) return error;
  *context = Of(stream);
  return 0;
}

int cuCtxPushCurrent_v2(void* context) {
  if (const int error = Enter("cuCtxPushCurrent", "")) return error;
  current.push_back(static_cast<Context*>(context));
  return 0;
}

int cuCtxPopCurrent_v2(void** context) {
  if (current.empty()) return kInvalidContext;
  *context = current.back();
  current.pop_back();
  return Enter("cuCtxPopCurrent", "");
}

#ifndef OLD_DRIVER
int cuCtxGetId(void* context, unsigned long long* id) {
  if (const int error = Enter("cuCtxGetId", "")) return error;
  if (context == nullptr && current.empty()) return kInvalidContext;
  *id = context ? *static_cast<Context*>(context) : *current.back();
  return 0;
}
#endif

int cuModuleLoadDataEx(void** module, const void* data, unsigned count, int* options, void** values) {
  if (const int error = Enter("cuModuleLoadDataEx", "")) {
    char* buffer = nullptr;
    std::size_t size = 0;
    for (unsigned i = 0; i < count; ++i) {
      if (options[i] == 5) buffer = static_cast<char*>(values[i]);           // CU_JIT_ERROR_LOG_BUFFER
      if (options[i] == 6) size = reinterpret_cast<std::size_t>(values[i]);  // ..._SIZE_BYTES
    }
    std::snprintf(buffer, size, "ptxas fatal : words of the compiler");
    return error;
  }
  if (current.empty()) return kInvalidContext;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // long enough for other threads to come
  image = static_cast<const char*>(data);
  *module = new Module{*current.back()};
  return 0;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  if (const int error = Enter("cuModuleGetFunction", " %s", name)) return error;
  const auto found = ptx::kernels.find(name);
  if (found == ptx::kernels.end()) return kNotFound;
  *function = new Function{static_cast<Module*>(module)->context, found->second};
  return 0;
}

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream, void** arguments,
                   void** extra) {
  if (const int error = Enter("cuLaunchKernel", " stream=%p context=%llu grid=%u,%u,%u block=%u,%u,%u shared=%u",
                              stream, current.empty() ? 0 : *current.back(), grid_x, grid_y, grid_z, block_x, block_y,
                              block_z, shared_bytes)) {
    return error;
  }
  if (current.empty()) return kInvalidContext;
  if (static_cast<Function*>(function)->context != *current.back()) return kInvalidHandle;
  if (Of(stream) != current.back()) return kInvalidHandle;
  if (grid_x == 0 || block_x == 0 || block_x > 1024 || extra != nullptr) return kInvalidValue;
  ptx::Run(static_cast<Function*>(function)->kernel, arguments, grid_x, block_x);
  return 0;
}

}  // extern "C"
