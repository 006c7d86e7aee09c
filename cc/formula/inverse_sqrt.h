// The hyper-parameters of WarmupInverseSqrt: their rules, and the exact constants of its curve.
#ifndef LROPS_FORMULA_INVERSE_SQRT_H_
#define LROPS_FORMULA_INVERSE_SQRT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "formula/constants.h"

namespace lrops {

struct InverseSqrtParameters : Hyperparameters {
  using Curve = InverseSqrtCurve;
  std::optional<std::int64_t> timescale;  // N; empty: W
  std::int64_t hold_steps;                // H

  template <class Visitor>
  void Visit(Visitor&& visit) {
    Hyperparameters::Visit(visit);
    visit("timescale", timescale);
    visit("hold_steps", hold_steps);
  }
};

// The error message of the first broken rule; empty if all rules hold.
inline std::string RuleError(const InverseSqrtParameters& h, const Dtype& dtype) {
  std::string error = internal::CommonRuleError(h, dtype);
  if (error.empty()) error = internal::CountError("hold_steps", h.hold_steps, 0);
  if (error.empty()) error = internal::CountError("timescale", h.timescale.value_or(1), 1);
  if (error.empty() && !h.timescale && h.warmup_steps == 0) {
    error =
        "timescale must be given if there is no warmup: it is warmup_steps by default, and must be at least 1. "
        "Received: timescale=None, warmup_steps=0";
  }
  return error;
}

// The hyper-parameters must have passed RuleError.
inline InverseSqrtCurve MakeCurve(const InverseSqrtParameters& h) {
  InverseSqrtCurve curve;
  static_cast<CommonConstants&>(curve) = internal::MakeCommonConstants(h);
  curve.decay_start = static_cast<u64>(h.warmup_steps) + static_cast<u64>(h.hold_steps);
  curve.timescale = static_cast<u64>(h.timescale.value_or(h.warmup_steps));
  curve.inverse_root = InverseSquareRoot(curve.timescale);
  curve.peak = internal::Peak(h);
  return curve;
}

}  // namespace lrops

#endif  // LROPS_FORMULA_INVERSE_SQRT_H_
