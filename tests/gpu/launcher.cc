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

namespace {

void Read(const std::string& text, double* value) { *value = std::strtod(text.c_str(), nullptr); }
void Read(const std::string& text, std::int64_t* value) { *value = std::strtoll(text.c_str(), nullptr, 10); }
void Read(const std::string& text, std::string* value) { *value = text; }
void Read(const std::string& text, std::optional<std::int64_t>* value) {
  if (text != "None") *value = std::strtoll(text.c_str(), nullptr, 10);
}

// The rule that a curve breaks in this dtype, or an empty string. Programs that include this file call it, too.
template <class H>
std::string Refusal(const H& hyperparameters, const lrops::Dtype& dtype) {
  return RuleError(hyperparameters, dtype);
}

template <class H>
std::string Launch(const std::map<std::string, std::string>& values, const char* dtype, const std::int64_t* step,
                   std::int64_t count, void* out, void* stream) {
  H hyperparameters;
  hyperparameters.Visit([&](const char* name, auto& value) { Read(values.at(name), &value); });
  const lrops::Dtype& type = *lrops::FindDtype(dtype);
  const std::string error = Refusal(hyperparameters, type);
  return error.empty() ? LaunchLearningRates(MakeSchedule(hyperparameters, type), step, count, out, stream) : error;
}

}  // namespace

// `hyperparameters` holds a line for each: its name, a space and its value.
extern "C" void launch(const char* hyperparameters, const char* dtype, const std::int64_t* step, std::int64_t count,
                       void* out, void* stream, char* error, int size) {
  std::map<std::string, std::string> values;
  std::istringstream lines(hyperparameters);
  for (std::string name, value; lines >> name >> value;) values[name] = value;
  const auto launch = values.count("total_steps")         ? Launch<lrops::DecayParameters>
                      : values.count("first_decay_steps") ? Launch<lrops::RestartsParameters>
                                                          : Launch<lrops::InverseSqrtParameters>;
  std::snprintf(error, size, "%s", launch(values, dtype, step, count, out, stream).c_str());
}
