// The launcher over CUDA's driver API. See cuda_launcher.h.
//
// Why not the runtime API? Its static library would add 0.7 MB and tie lrops to one CUDA major; the driver's functions
// are the same in all of them, and one PTX text fits every card.
#include "kernels/cuda_launcher.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <mutex>
#include <type_traits>

#include "kernels/warmup_cosine_ptx.h"

#ifdef __x86_64__
// The versions these have had from the beginning, so that a library linked on a new system loads on an old one: glibc
// 2.34 gave them a new version when it moved them from libdl to libc.
__asm__(".symver dlopen,dlopen@GLIBC_2.2.5");
__asm__(".symver dlsym,dlsym@GLIBC_2.2.5");
__asm__(".symver dlerror,dlerror@GLIBC_2.2.5");
#endif

namespace lrops {
namespace {

enum Kernel { kDecay, kRestarts, kKernels };
constexpr const char* kNames[kKernels] = {"lrops_warmup_cosine", "lrops_warmup_cosine_restarts"};
constexpr std::int64_t kWarp = 32;
constexpr std::int64_t kBlock = 256;
constexpr std::int64_t kGrid = 4096;  // more than any card runs at once; each thread then takes several elements

// What cuda.h declares, with every handle as void* and enumerations as int.
using Result = int;
constexpr Result kSuccess = 0;
constexpr int kJitErrorLogBuffer = 5;
constexpr int kJitErrorLogBufferSizeBytes = 6;

static_assert(sizeof(RestartsCurve) + sizeof(Format) + 32 <= 4096, "all the arguments that a kernel can have");

class Driver {
 public:
  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      error_ = dlerror();
      return;
    }
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (function == nullptr && error_.empty()) error_ = std::string("libcuda.so.1 has no ") + name;
    };
    find(GetErrorName, "cuGetErrorName");
    find(GetErrorString, "cuGetErrorString");
    find(StreamGetCtx, "cuStreamGetCtx");
    find(CtxPushCurrent, "cuCtxPushCurrent_v2");
    find(CtxPopCurrent, "cuCtxPopCurrent_v2");
    find(CtxGetId, "cuCtxGetId");  // since the least driver
    find(ModuleLoadDataEx, "cuModuleLoadDataEx");
    find(ModuleGetFunction, "cuModuleGetFunction");
    find(LaunchKernel, "cuLaunchKernel");
  }

  // Why the driver cannot be used; empty where it can.
  const std::string& error() const { return error_; }

  // The functions of cuda.h, without their "cu".
  Result (*GetErrorName)(Result, const char**);
  Result (*GetErrorString)(Result, const char**);
  Result (*StreamGetCtx)(void* stream, void** context);
  Result (*CtxPushCurrent)(void* context);
  Result (*CtxPopCurrent)(void** context);
  Result (*CtxGetId)(void* context, unsigned long long* id);
  Result (*ModuleLoadDataEx)(void** module, const void* image, unsigned count, int* options, void** values);
  Result (*ModuleGetFunction)(void** function, void* module, const char* name);
  Result (*LaunchKernel)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                         unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream, void** arguments,
                         void** extra);

 private:
  std::string error_;
};

// What a call that failed returned, or an empty string.
std::string Check(const Driver& driver, const char* call, Result result, const char* log = "") {
  if (result == kSuccess) return "";
  const char* name = nullptr;
  const char* text = nullptr;
  driver.GetErrorName(result, &name);
  driver.GetErrorString(result, &text);
  return std::string(call) + " returned " + (name ? name : std::to_string(result)) +
         (text ? std::string(" (") + text + ")" : "") + (*log ? std::string("; the log says: ") + log : "");
}

// The kernels in the current context. Loads the module at the first call in that context, which is when the driver
// compiles the PTX for its card.
std::string GetKernels(const Driver& driver, std::array<void*, kKernels>* kernels) {
  static std::mutex mutex;
  // By the context's number and not its address, which a later context may get again. A destroyed context takes its
  // module with it.
  static auto& loaded = *new std::map<unsigned long long, std::array<void*, kKernels>>;

  unsigned long long context;
  std::string error = Check(driver, "cuCtxGetId", driver.CtxGetId(nullptr, &context));
  if (!error.empty()) return error;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = loaded.find(context);
  if (found != loaded.end()) {
    *kernels = found->second;
    return "";
  }
  char log[4096] = "";
  int options[] = {kJitErrorLogBuffer, kJitErrorLogBufferSizeBytes};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  void* module = nullptr;
  error = Check(driver, "cuModuleLoadDataEx", driver.ModuleLoadDataEx(&module, kPtx, 2, options, values), log);
  for (std::size_t kernel = 0; kernel < kKernels && error.empty(); ++kernel) {
    error = Check(driver, "cuModuleGetFunction", driver.ModuleGetFunction(&(*kernels)[kernel], module, kNames[kernel]));
  }
  if (error.empty()) loaded[context] = *kernels;
  return error;
}

// Launches a kernel; returns what failed, or an empty string. `curve` is the kernel's.
std::string Launch(Kernel kernel, const void* curve, const Format& format, int bytes, const std::int64_t* step,
                   std::int64_t count, void* out, void* stream) {
  static const Driver& driver = *new Driver;  // never destroyed: a thread may launch while the process ends
  if (!driver.error().empty()) return driver.error();

  // A kernel belongs to a context, and so does a stream: the stream's is the right one, whatever is current here.
  void* context = nullptr;
  std::string error = Check(driver, "cuStreamGetCtx", driver.StreamGetCtx(stream, &context));
  if (error.empty()) error = Check(driver, "cuCtxPushCurrent", driver.CtxPushCurrent(context));
  if (!error.empty()) return error;
  std::array<void*, kKernels> kernels;
  error = GetKernels(driver, &kernels);
  if (error.empty()) {
    void* arguments[] = {const_cast<void*>(curve), const_cast<Format*>(&format), &bytes, &step, &count, &out};
    const auto block = static_cast<unsigned>(std::min((count - 1) / kWarp * kWarp + kWarp, kBlock));
    const auto grid = static_cast<unsigned>(std::min((count - 1) / kBlock + 1, kGrid));
    error = Check(driver, "cuLaunchKernel",
                  driver.LaunchKernel(kernels[kernel], grid, 1, 1, block, 1, 1, 0, stream, arguments, nullptr));
  }
  const std::string restored = Check(driver, "cuCtxPopCurrent", driver.CtxPopCurrent(&context));
  return error.empty() ? restored : error;
}

template <class H>
std::string Launch(Kernel kernel, const Schedule<H>& schedule, const std::int64_t* step, std::int64_t count, void* out,
                   void* stream) {
  if (count == 0) return "";
  const std::string error =
      Launch(kernel, &schedule.curve, schedule.format, schedule.dtype->bytes, step, count, out, stream);
  if (error.empty()) return "";
  return std::string("the CUDA kernel ") + kNames[kernel] + " could not be launched: " + error +
         ". It needs an NVIDIA driver of version " + kLeastDriver +
         " or newer; `nvidia-smi` names the one of this machine. On a CPU, with tf.device('CPU:0'), the op needs none.";
}

}  // namespace

std::string LaunchLearningRates(const Schedule<DecayParameters>& schedule, const std::int64_t* step, std::int64_t count,
                                void* out, void* stream) {
  return Launch(kDecay, schedule, step, count, out, stream);
}

std::string LaunchLearningRates(const Schedule<RestartsParameters>& schedule, const std::int64_t* step,
                                std::int64_t count, void* out, void* stream) {
  return Launch(kRestarts, schedule, step, count, out, stream);
}

}  // namespace lrops
