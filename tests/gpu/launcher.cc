// The launcher as a C function, for fake_cuda.py to call through ctypes.
#include <cstdint>
#include <cstdio>
#include <string>

#include "formula/schedule.h"
#include "kernels/cuda_launcher.h"

// Evaluates a curve of `kernel` in float32; the decay is CURVE of test_launcher.py.
extern "C" void launch(const char* kernel, const std::int64_t* step, std::int64_t count, void* out, void* stream,
                       char* error, int size) {
  const auto launch = [=](const auto& hyperparameters) {
    const auto schedule = MakeSchedule(hyperparameters, *lrops::FindDtype("float32"));
    return LaunchLearningRates(schedule, step, count, out, stream);
  };
  const std::string name = kernel;
  const std::string failed =
      name == "lrops_warmup_decay"          ? launch(lrops::DecayParameters{{1e-3, 10, 0, 0}, 100, 0.1, "cosine", 0})
      : name == "lrops_warmup_inverse_sqrt" ? launch(lrops::InverseSqrtParameters{{1e-3, 10, 0, 0}, {}, 0})
                                            : launch(lrops::RestartsParameters{{1e-3, 0, 0, 0}, 1000, 2, 1, 0, {}});
  std::snprintf(error, size, "%s", failed.c_str());
}
