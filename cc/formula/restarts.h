// The hyper-parameters of WarmupCosineRestarts: their rules, and the table of cycles in which the formula looks up a
// step. Each length is rounded once, from an exact power, so no error builds up and every machine has the same table.
#ifndef LROPS_FORMULA_RESTARTS_H_
#define LROPS_FORMULA_RESTARTS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formula/constants.h"

namespace lrops {

struct RestartsParameters : Hyperparameters {
  using Curve = RestartsCurve;
  std::int64_t first_decay_steps;
  double t_mul;                        // of each cycle's length to the one before
  double m_mul;                        // of each cycle's height above the floor, likewise
  double alpha;                        // the floor as a ratio of the peak
  std::optional<std::int64_t> cycles;  // empty: as many as end by step 2^62

  template <class Visitor>
  void Visit(Visitor&& visit) {
    Hyperparameters::Visit(visit);
    visit("first_decay_steps", first_decay_steps);
    visit("t_mul", t_mul);
    visit("m_mul", m_mul);
    visit("alpha", alpha);
    visit("cycles", cycles);
  }
};

namespace internal {

// The exact product of an integer and of doubles: digits * 2^exponent.
class ExactProduct {
 public:
  explicit ExactProduct(std::int64_t n) : digits_{static_cast<u64>(n)} {}

  void Multiply(double x) {
    int exponent;
    u64 factor = Significand(x, &exponent);
    exponent -= 64;
    for (; factor % 2 == 0; factor /= 2) ++exponent;  // so that a power of two adds no digit
    u64 carry = 0;
    for (u64& digit : digits_) {
      const u128 product = static_cast<u128>(digit) * factor + carry;
      digit = static_cast<u64>(product);
      carry = High64(product);
    }
    if (carry) digits_.push_back(carry);
    exponent_ += exponent;
  }

  // The nearest integer, ties to even; kMaxSteps + 1 if it is 2^63 or more.
  std::int64_t Nearest() const {
    const std::int64_t point = -exponent_;  // the bit that is worth 1
    if (Length() - point > 63) return kMaxSteps + 1;
    if (point <= 0) return static_cast<std::int64_t>(From(0) << -point);
    const u64 whole = From(point);
    const bool half = From(point - 1) & 1;
    return static_cast<std::int64_t>(whole + (half && (whole % 2 == 1 || AnyBelow(point - 1))));
  }

  // As a Real, cut to 64 bits with a sticky bit. The product must lie in (0, 1].
  Real<u64> Cut() const {
    const std::int64_t low = Length() - 64;
    const u64 top = low >= 0 ? From(low) | AnyBelow(low) : From(0) << -low;
    return {top, static_cast<u64>(-(exponent_ + Length()))};
  }

 private:
  std::int64_t Length() const {  // of the digits, in bits
    return 64 * static_cast<std::int64_t>(digits_.size()) - static_cast<std::int64_t>(LeadingZeros(digits_.back()));
  }

  u64 From(std::int64_t bit) const {  // the 64 bits from this one up
    const std::size_t at = static_cast<std::size_t>(bit / 64);
    const u64 low = at < digits_.size() ? digits_[at] : 0;
    const u64 high = at + 1 < digits_.size() ? digits_[at + 1] : 0;
    const u64 within = static_cast<u64>(bit % 64);
    return ShiftRight(low, within) | ShiftLeft(high, 64 - within);
  }

  bool AnyBelow(std::int64_t bit) const {
    for (std::size_t at = 0; at < digits_.size() && bit > 0; ++at, bit -= 64) {
      if (bit >= 64 ? digits_[at] : ShiftLeft(digits_[at], static_cast<u64>(64 - bit))) return true;
    }
    return false;
  }

  std::vector<u64> digits_;  // the lowest first
  std::int64_t exponent_ = 0;
};

// Whether all cycles are alike. Then the table holds one cycle, which may repeat any number of times.
inline bool AllAlike(const RestartsParameters& h) { return h.t_mul == 1 && h.m_mul == 1; }

// How many cycles end by step 2^62 if all are alike.
inline std::int64_t FittingAlike(const RestartsParameters& h) {
  return (kMaxSteps - h.warmup_steps) / h.first_decay_steps;
}

}  // namespace internal

// The first step of each cycle, and the end of the last. Cycles that were not asked for, or that end after step 2^62,
// are left out. There are at most kTable + 1, so that the caller sees if a table is too small.
inline std::vector<u64> CycleStarts(const RestartsParameters& h) {
  std::vector<u64> starts{static_cast<u64>(h.warmup_steps)};
  const std::int64_t count = std::min<std::int64_t>(h.cycles.value_or(kTable + 1), kTable + 1);
  internal::ExactProduct length(h.first_decay_steps);
  for (std::int64_t cycle = 0; cycle < count; ++cycle, length.Multiply(h.t_mul)) {
    const u64 end = starts.back() + static_cast<u64>(length.Nearest());
    if (end > static_cast<u64>(kMaxSteps)) break;
    starts.push_back(end);
  }
  return starts;
}

// The error message of the first broken rule; empty if all rules hold.
inline std::string RuleError(const RestartsParameters& h, const Dtype& dtype) {
  using internal::ToText;
  std::string error = internal::CommonRuleError(h, dtype);
  if (error.empty()) error = internal::RatioError("alpha", h.alpha);
  if (error.empty()) error = internal::CountError("first_decay_steps", h.first_decay_steps, 1);
  if (error.empty()) error = internal::CountError("cycles", h.cycles.value_or(1), 1);
  if (!error.empty()) return error;
  if (!(std::isfinite(h.t_mul) && h.t_mul >= 1)) {
    return "t_mul is the ratio of a cycle's length to the one before and must be finite and at least 1. Received: "
           "t_mul=" +
           ToText(h.t_mul);
  }
  if (!(h.m_mul > 0 && h.m_mul <= 1)) {
    return "m_mul is the ratio of a cycle's height above the floor to the one before and must lie in (0, 1]. Received: "
           "m_mul=" +
           ToText(h.m_mul);
  }
  const bool alike = internal::AllAlike(h);
  const std::int64_t most = static_cast<std::int64_t>(kTable);
  const std::string received = " Received: first_decay_steps=" + ToText(h.first_decay_steps) +
                               ", t_mul=" + ToText(h.t_mul) + ", m_mul=" + ToText(h.m_mul) +
                               ", cycles=" + (h.cycles ? ToText(*h.cycles) : "None");
  if (!alike && h.cycles.value_or(1) > most) {
    return "cycles must be at most " + ToText(most) + ", unless t_mul=1 and m_mul=1." + received;
  }
  const std::int64_t fitting = alike ? internal::FittingAlike(h) : static_cast<std::int64_t>(CycleStarts(h).size()) - 1;
  if (h.cycles.value_or(1) > fitting) {
    return "the last cycle must end at most 2^62 steps after start_step, and " + ToText(fitting) + " of them " +
           (fitting == 1 ? "does." : "do.") + received + ", warmup_steps=" + ToText(h.warmup_steps);
  }
  if (!alike && fitting > most) {
    return "cycles must be given if more than " + ToText(most) + " of them end within 2^62 steps: a number from 1 to " +
           ToText(most) + ", after which the rate stays at the floor." + received;
  }
  return "";
}

// The hyper-parameters must have passed RuleError.
inline RestartsCurve MakeCurve(const RestartsParameters& h) {
  RestartsCurve curve{};
  static_cast<CommonConstants&>(curve) = internal::MakeCommonConstants(h);
  Real<u64> drop;
  internal::SplitPeak(h, h.alpha, &curve.floor, &drop);
  const bool alike = internal::AllAlike(h);
  RestartsParameters in_table = h;
  if (alike) in_table.cycles = 1;
  const std::vector<u64> starts = CycleStarts(in_table);
  curve.repeats = alike ? static_cast<u64>(h.cycles.value_or(internal::FittingAlike(h))) : 1;
  curve.count = starts.size() - 1;
  curve.total_steps = starts.back() + (curve.repeats - 1) * static_cast<u64>(h.first_decay_steps);
  std::copy(starts.begin(), starts.end(), curve.first);
  internal::ExactProduct height(1);
  for (u64 i = 0; i < curve.count; ++i, height.Multiply(h.m_mul)) {
    const bool full = i == 0 || h.m_mul == 1;  // then the peak is p itself, without a cut
    const Real<u64> lower = full ? drop : Product(drop, height.Cut());
    const Real<u64> peak = full ? internal::Peak(h) : Sum(curve.floor, lower, u64{0});
    curve.reciprocal[i] = internal::ToDivisor(starts[i + 1] - starts[i]).reciprocal;
    curve.peak_significand[i] = peak.significand;
    curve.peak_exponent[i] = peak.exponent;
    curve.drop_significand[i] = lower.significand;
    curve.drop_exponent[i] = lower.exponent;
  }
  return curve;
}

}  // namespace lrops

#endif  // LROPS_FORMULA_RESTARTS_H_
