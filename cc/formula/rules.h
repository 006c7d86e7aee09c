// The hyper-parameters that every curve has, the output dtypes, and the rules for both, with their error messages.
#ifndef LROPS_FORMULA_RULES_H_
#define LROPS_FORMULA_RULES_H_

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace lrops {

// lrops/schedules.py documents each for users. `Visit` names every member once: the kernels read op attributes, and the
// Python module reads keywords, by that name.
struct Hyperparameters {
  double initial_learning_rate;  // the peak p
  std::int64_t warmup_steps;     // W
  double warmup_start;           // the first value as a ratio of the peak
  std::int64_t start_step;

  template <class Visitor>
  void Visit(Visitor&& visit) {
    visit("initial_learning_rate", initial_learning_rate);
    visit("warmup_steps", warmup_steps);
    visit("warmup_start", warmup_start);
    visit("start_step", start_step);
  }
};

// An IEEE binary format that a rate can be rounded to.
struct Dtype {
  const char* name;
  int bytes;
  int precision;  // significand bits, the hidden one included
  int bias;       // of the exponent field
};
inline constexpr Dtype kDtypes[] = {
    {"float16", 2, 11, 15}, {"bfloat16", 2, 8, 127}, {"float32", 4, 24, 127}, {"float64", 8, 53, 1023}};

inline const Dtype* FindDtype(const std::string& name) {
  for (const Dtype& dtype : kDtypes) {
    if (name == dtype.name) return &dtype;
  }
  return nullptr;
}

inline constexpr std::int64_t kMaxSteps = std::int64_t{1} << 62;

namespace internal {

inline std::string ToText(std::int64_t x) { return std::to_string(x); }

inline std::string ToText(double x) {  // the shortest of the usual forms that reads back as x
  char text[32];
  for (int digits = 6; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, x);
    if (std::strtod(text, nullptr) == x) break;
  }
  return text;
}

// Each rule returns an error message with the argument, the rule and the value received, or an empty string.
inline std::string CountError(const char* name, std::int64_t value, std::int64_t least) {
  if (value >= least && value <= kMaxSteps) return "";
  return std::string(name) + " must be at least " + (least < 0 ? "-2^62" : ToText(least)) +
         " and at most 2^62. Received: " + name + "=" + ToText(value);
}

inline std::string RatioError(const char* name, double value) {
  if (value >= 0 && value <= 1) return "";
  return std::string(name) + " is a ratio of the peak and must lie in [0, 1]. Received: " + name + "=" + ToText(value);
}

// The rules that all curves share.
inline std::string CommonRuleError(const Hyperparameters& h, const Dtype& dtype) {
  const double p = h.initial_learning_rate;
  if (!(std::isfinite(p) && p > 0)) {
    return "initial_learning_rate must be finite and greater than 0: it is the peak, where warmup ends (what Keras' "
           "CosineDecay calls warmup_target). Received: initial_learning_rate=" +
           ToText(p);
  }
  std::string error = CountError("warmup_steps", h.warmup_steps, 0);
  if (error.empty()) error = CountError("start_step", h.start_step, -kMaxSteps);
  if (error.empty()) error = RatioError("warmup_start", h.warmup_start);
  if (!error.empty()) return error;
  // A peak that the dtype cannot hold would train at inf or at 0 forever. The dtype's largest number is just below
  // 2^(bias + 1), and numbers up to half of its smallest, 2^(2 - bias - precision), round to 0.
  const double most = std::ldexp(2 - std::ldexp(1, -dtype.precision), dtype.bias);  // from here it rounds to inf
  const double least = std::ldexp(1, 1 - dtype.bias - dtype.precision);             // up to here it rounds to 0
  if (dtype.bytes < 8 && (p >= most || p <= least)) {
    return std::string("initial_learning_rate must not round to ") + (p >= most ? "infinity" : "0") +
           " in dtype=" + dtype.name + ": choose a wider dtype. Received: initial_learning_rate=" + ToText(p);
  }
  return "";
}

}  // namespace internal
}  // namespace lrops

#endif  // LROPS_FORMULA_RULES_H_
