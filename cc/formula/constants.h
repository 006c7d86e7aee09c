// The exact constants that the formula needs: what all curves share. The host computes them once for each op.
#ifndef LROPS_FORMULA_CONSTANTS_H_
#define LROPS_FORMULA_CONSTANTS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "formula/learning_rate.h"
#include "formula/rules.h"

namespace lrops::internal {

using u128 = unsigned __int128;

inline u64 High64(u128 x) { return static_cast<u64>(x >> 64); }

// x / 2^(128 + exponent) as a Real, cut to 64 bits with a sticky bit.
inline Real<u64> ToReal(u128 x, u64 exponent) {
  if (x == 0) return Zero(u64{0});
  const u64 zeros = High64(x) ? LeadingZeros(High64(x)) : 64 + LeadingZeros(static_cast<u64>(x));
  x <<= zeros;
  return {High64(x) | NonZero(static_cast<u64>(x)), exponent + zeros};
}

// x = result * 2^(exponent - 64). The result's top bit is set, unless x is 0. x >= 0.
inline u64 Significand(double x, int* exponent) { return static_cast<u64>(std::ldexp(std::frexp(x, exponent), 64)); }

// The peak as a Real, divided by 2^E.
inline Real<u64> Peak(const Hyperparameters& h) {
  int exponent;
  return {Significand(h.initial_learning_rate, &exponent), 0};
}

// peak * ratio and peak * (1 - ratio), each divided by 2^E.
inline void SplitPeak(const Hyperparameters& h, double ratio, Real<u64>* part, Real<u64>* remainder) {
  const u128 peak = Peak(h).significand;
  int exponent;  // at most 1: a ratio of 1
  const u64 significand = Significand(ratio, &exponent);
  *part = ToReal(peak * significand, static_cast<u64>(-std::int64_t{exponent}));
  const int shift = 64 - 1 + exponent;  // the ratio in units of 2^-127
  const u128 fixed = shift >= 0 ? static_cast<u128>(significand) << shift
                                : static_cast<u128>(ShiftRightSticky(significand, static_cast<u64>(-shift)));
  const Real<u64> complement = ToReal((u128{1} << 127) - fixed, static_cast<u64>(-1));
  *remainder = ToReal(peak * complement.significand, complement.exponent);
}

// d > 0.
inline Divisor<u64> ToDivisor(u64 d) {
  const u64 shift = LeadingZeros(d) - 1;
  const u64 value = d << shift;
  // The rules allow no empty cycle, but clang-tidy cannot see that here.
  const u128 most = (u128{1} << 126) - 1;
  return {value, static_cast<u64>(most / value), shift};  // NOLINT(clang-analyzer-core.DivideZero)
}

// How `dtype` stores rates of a curve with this peak.
inline Format MakeFormat(const Dtype& dtype, const Hyperparameters& h) {
  int exponent;
  std::frexp(h.initial_learning_rate, &exponent);
  const std::int64_t field = std::int64_t{exponent} - 1 + dtype.bias;
  return {static_cast<u64>(dtype.precision), static_cast<u64>(std::max<std::int64_t>(field - 1, 0)),
          static_cast<u64>(std::max<std::int64_t>(1 - field, 0))};
}

inline CommonConstants MakeCommonConstants(const Hyperparameters& h) {
  CommonConstants common;
  common.start_step = static_cast<u64>(h.start_step) + (u64{1} << 63);
  common.warmup_steps = static_cast<u64>(h.warmup_steps);
  common.warmup = ToDivisor(std::max<u64>(common.warmup_steps, 1));
  SplitPeak(h, h.warmup_start, &common.start, &common.rise);
  return common;
}

}  // namespace lrops::internal

#endif  // LROPS_FORMULA_CONSTANTS_H_
