// Launches the CUDA kernels through the driver API. See cuda_launcher.h.
//
// Why not the runtime API? Its static library would add 0.7 MB and tie lrops to one CUDA major version. The driver's
// functions are the same in all versions, and one PTX text fits every card.
#include "kernels/cuda_launcher.h"

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string_view>
#include <type_traits>

#include "kernels/learning_rate_ptx.h"
#include "kernels/oldest_glibc.h"

#ifdef LROPS_OLDEST_GLIBC  // glibc 2.34 moved these functions from libdl to libc
__asm__(".symver dlopen,dlopen@" LROPS_OLDEST_GLIBC);
__asm__(".symver dlsym,dlsym@" LROPS_OLDEST_GLIBC);
__asm__(".symver dlerror,dlerror@" LROPS_OLDEST_GLIBC);
#endif

namespace lrops {
namespace {

constexpr std::int64_t kWarp = 32;
constexpr std::int64_t kBlock = 256;
constexpr std::int64_t kGrid = 4096;  // more than any card runs at once; each thread then takes several elements
static_assert(sizeof(RestartsCurve) + sizeof(Format) + 32 <= 4096, "all the arguments that a kernel can have");

// What cuda.h declares, with every handle as void* and enumerations as int.
using Result = int;
constexpr Result kSuccess = 0;

constexpr char kOtherFix[] = "Run `python -m lrops doctor` to check this machine's driver and GPUs";

// What to do about a CUDA error, by its number. The first matching row counts.
constexpr struct {
  Result first, last;
  const char* fix;
} kFixes[] = {
    {2, 2,
     "The driver needs a little of the GPU's memory in addition to what TensorFlow took, and it is full: set "
     "TF_FORCE_GPU_ALLOW_GROWTH=true, and end what else `nvidia-smi` shows on this GPU"},
    {209, 209, "The kernel has no code for a card that old: evaluate the schedule on a CPU, with tf.device('CPU:0')"},
    {218, 218,
     "The driver's compiler rejects the kernel. That is a fault of lrops: please report it, with the driver's version, "
     "which `nvidia-smi` shows"},
    {221, 221,
     "The driver's compiler, libnvidia-ptxjitcompiler.so.1, is missing, which is usual in a container: start it with "
     "NVIDIA_DRIVER_CAPABILITIES=compute,utility"},
    {223, 223,
     "The environment forbids the driver to compile the kernel for this card: unset CUDA_DISABLE_PTX_JIT and "
     "CUDA_DISABLE_JIT"},
    {701, 701, kOtherFix},
    {703, 709, kOtherFix},
    {711, 713, kOtherFix},
    {700, 719,
     "Most likely an earlier kernel of the model failed: CUDA reports a failed kernel at the next call, whichever that "
     "is. Run once with CUDA_LAUNCH_BLOCKING=1 to see which one it was. This process cannot use the GPU any more"}};

std::string DriverFix() {
  return std::string("It needs an NVIDIA driver of version ") + kLeastDriver +
         " or newer; `nvidia-smi` names the one of this machine. On a CPU, with tf.device('CPU:0'), the op needs none";
}

std::string Fix(Result result) {
  if (result == 222) return DriverFix();  // CUDA_ERROR_UNSUPPORTED_PTX_VERSION
  for (const auto& known : kFixes) {
    if (known.first <= result && result <= known.last) return known.fix;
  }
  return kOtherFix;
}

struct Driver {
  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      error = dlerror();
      return;
    }
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (function == nullptr && error.empty()) error = std::string("libcuda.so.1 has no ") + name;
    };
    find(GetErrorName, "cuGetErrorName");
    find(GetErrorString, "cuGetErrorString");
    find(LibraryLoadData, "cuLibraryLoadData");  // like the next one, new in the oldest supported driver
    find(LibraryGetKernel, "cuLibraryGetKernel");
    find(LaunchKernel, "cuLaunchKernel");
  }

  // What a call returned and what to do about it, or an empty string.
  std::string Check(const char* call, Result result) const {
    if (result == kSuccess) return "";
    const char* name = nullptr;
    const char* text = nullptr;
    GetErrorName(result, &name);
    GetErrorString(result, &text);
    return std::string(call) + " returned " + (name ? name : std::to_string(result)) +
           (text ? std::string(" (") + text + ")" : "") + ". " + Fix(result);
  }

  std::string error;  // why the driver cannot be used; empty if it can

  // The functions of cuda.h, without their "cu".
  Result (*GetErrorName)(Result, const char**);
  Result (*GetErrorString)(Result, const char**);
  Result (*LibraryLoadData)(void** library, const void* code, int* jit_options, void** jit_values, unsigned jit_count,
                            int* options, void** values, unsigned count);
  Result (*LibraryGetKernel)(void** kernel, void* library, const char* name);
  Result (*LaunchKernel)(void* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                         unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream, void** arguments,
                         void** extra);
};

// The kernels. They belong to no context: at the first launch on a stream, the driver loads them into the stream's
// context and compiles the PTX for the card. With CUDA_MODULE_LOADING=EAGER it loads them into every context at once.
// The compiler's log is not asked for: the driver would write it into one buffer, whichever thread makes it compile.
class Kernels {
 public:
  // Finds a kernel. Returns what failed, or an empty string. The driver gets the addresses of local variables, so a
  // call that fails leaves no handle behind, and the next one tries again.
  std::string Find(const Driver& driver, const char* name, void** found) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (library_ == nullptr) {
      void* library = nullptr;
      const Result result = driver.LibraryLoadData(&library, kPtx, nullptr, nullptr, 0, nullptr, nullptr, 0);
      if (result != kSuccess) return driver.Check("cuLibraryLoadData", result);
      library_ = library;
    }
    void*& kernel = kernels_[name];
    if (kernel == nullptr) {
      void* handle = nullptr;
      const Result result = driver.LibraryGetKernel(&handle, library_, name);
      if (result != kSuccess) return driver.Check("cuLibraryGetKernel", result);
      kernel = handle;
    }
    *found = kernel;
    return "";
  }

 private:
  std::mutex mutex_;
  void* library_ = nullptr;
  std::map<std::string_view, void*> kernels_;  // by names that are constants
};

std::string TryToLaunch(const char* kernel, void** arguments, std::int64_t count, void* stream) {
  // With a null stream the driver would launch in whatever context is current here.
  if (stream == nullptr) {
    return "the device gives no CUDA stream, so it is none of the NVIDIA GPUs that TensorFlow drives itself. Evaluate "
           "the schedule on a CPU, with tf.device('CPU:0')";
  }
  // Never destroyed: a thread may launch while the process ends.
  static const Driver& driver = *new Driver;
  static Kernels& kernels = *new Kernels;
  if (!driver.error.empty()) return driver.error + ". " + DriverFix();
  void* found = nullptr;
  const std::string error = kernels.Find(driver, kernel, &found);
  if (!error.empty()) return error;
  const auto block = static_cast<unsigned>(std::min((count - 1) / kWarp * kWarp + kWarp, kBlock));
  const auto grid = static_cast<unsigned>(std::min((count - 1) / kBlock + 1, kGrid));
  return driver.Check("cuLaunchKernel",
                      driver.LaunchKernel(found, grid, 1, 1, block, 1, 1, 0, stream, arguments, nullptr));
}

}  // namespace

std::string Launch(const char* kernel, const void* curve, const Format& format, int bytes, const std::int64_t* step,
                   std::int64_t count, void* out, void* stream) {
  if (count == 0) return "";
  void* arguments[] = {const_cast<void*>(curve), const_cast<Format*>(&format), &bytes, &step, &count, &out};
  const std::string error = TryToLaunch(kernel, arguments, count, stream);
  return error.empty() ? "" : std::string("the CUDA kernel ") + kernel + " could not be launched: " + error + ".";
}

}  // namespace lrops
