// The hyper-parameters of WarmupDecay: their rules, and the exact constants of its curve.
#ifndef LROPS_FORMULA_DECAY_H_
#define LROPS_FORMULA_DECAY_H_

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>

#include "formula/constants.h"

namespace lrops {

inline constexpr const char* kDecays[] = {"cosine", "linear", "minus_sqrt"};  // by kCosine, kLinear, kMinusSqrt

struct DecayParameters : Hyperparameters {
  using Curve = DecayCurve;
  std::int64_t total_steps;  // T, warmup and hold included
  double alpha;              // the floor as a ratio of the peak
  std::string decay;         // one of kDecays
  std::int64_t hold_steps;   // H

  template <class Visitor>
  void Visit(Visitor&& visit) {
    Hyperparameters::Visit(visit);
    visit("total_steps", total_steps);
    visit("alpha", alpha);
    visit("decay", decay);
    visit("hold_steps", hold_steps);
  }
};

// The error message of the first broken rule; empty if all rules hold.
inline std::string RuleError(const DecayParameters& h, const Dtype& dtype) {
  using internal::ToText;
  std::string error = internal::CommonRuleError(h, dtype);
  if (error.empty()) error = internal::RatioError("alpha", h.alpha);
  if (error.empty() && std::find(std::begin(kDecays), std::end(kDecays), h.decay) == std::end(kDecays)) {
    error = "decay must be 'cosine', 'linear' or 'minus_sqrt'. Received: decay='" + h.decay + "'";
  }
  if (error.empty()) error = internal::CountError("hold_steps", h.hold_steps, 0);
  if (error.empty()) error = internal::CountError("total_steps", h.total_steps, 1);
  if (error.empty() && h.warmup_steps >= h.total_steps - h.hold_steps) {  // without overflow
    error =
        "total_steps counts warmup and hold and must be greater than warmup_steps + hold_steps. Received: "
        "warmup_steps=" +
        ToText(h.warmup_steps) + ", hold_steps=" + ToText(h.hold_steps) + ", total_steps=" + ToText(h.total_steps);
  }
  return error;
}

// The hyper-parameters must have passed RuleError.
inline DecayCurve MakeCurve(const DecayParameters& h) {
  DecayCurve curve;
  static_cast<CommonConstants&>(curve) = internal::MakeCommonConstants(h);
  curve.decay = static_cast<u64>(std::find(std::begin(kDecays), std::end(kDecays), h.decay) - std::begin(kDecays));
  curve.decay_start = static_cast<u64>(h.warmup_steps + h.hold_steps);
  curve.total_steps = static_cast<u64>(h.total_steps);
  const u64 length = curve.total_steps - curve.decay_start;
  curve.length = internal::ToDivisor(length);
  curve.inverse_root = InverseSquareRoot(length);
  curve.peak = internal::Peak(h);
  internal::SplitPeak(h, h.alpha, &curve.floor, &curve.drop);
  return curve;
}

}  // namespace lrops

#endif  // LROPS_FORMULA_DECAY_H_
