// The launcher as a C function, for fake_cuda.py to call through ctypes.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <sstream>
#include <string>

#include "formula/schedule.h"
#include "kernels/cuda_launcher.h"

// A program that tries curves on a real card includes this file, and calls these: a hyper-parameter from its text, and
// the rule that a curve breaks in a dtype, or an empty string.
inline void Read(const std::string& text, double* value) { *value = std::strtod(text.c_str(), nullptr); }
inline void Read(const std::string& text, std::int64_t* value) { *value = std::strtoll(text.c_str(), nullptr, 10); }
inline void Read(const std::string& text, std::string* value) { *value = text; }
inline void Read(const std::string& text, std::optional<std::int64_t>* value) {
  if (text != "None") *value = std::strtoll(text.c_str(), nullptr, 10);
}
template <class H>
std::string Refusal(const H& hyperparameters, const lrops::Dtype& dtype) {
  return RuleError(hyperparameters, dtype);
}

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
