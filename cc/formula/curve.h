// The rules for hyper-parameters, with their error messages, and the exact constants that the formula needs. The host
// computes the constants once for each op. Restarts are in restarts.h.
#ifndef LROPS_FORMULA_CURVE_H_
#define LROPS_FORMULA_CURVE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <iterator>
#include <string>

#include "formula/learning_rate.h"

namespace lrops {

// What every curve has; lrops/schedules.py documents each for users. `Visit` names every member once: the kernels read
// op attributes, and the Python module reads keywords, by that name.
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

inline constexpr const char* kDecays[] = {"cosine", "linear", "minus_sqrt"};  // by kCosine, kLinear, kMinusSqrt

// The index of a decay in kDecays; if the name is unknown, the number of decays.
inline u64 DecayIndex(const std::string& name) {
  return static_cast<u64>(std::find(std::begin(kDecays), std::end(kDecays), name) - std::begin(kDecays));
}

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

using u128 = unsigned __int128;

inline std::string Text(std::int64_t x) { return std::to_string(x); }

inline std::string Text(double x) {  // the shortest of the usual forms that reads back as x
  char text[32];
  for (int digits = 6; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, x);
    if (std::strtod(text, nullptr) == x) break;
  }
  return text;
}

inline u64 Bits64(u128 x) { return static_cast<u64>(x >> 64); }

// x / 2^128 as a Real, cut to 64 bits with a sticky end.
inline Real<u64> ToReal(u128 x, u64 exponent) {
  if (x == 0) return {0, 2 * kFar};
  const u64 zeros = Bits64(x) ? LeadingZeros(Bits64(x)) : 64 + LeadingZeros(static_cast<u64>(x));
  x <<= zeros;
  return {Bits64(x) | NonZero(static_cast<u64>(x)), exponent + zeros};
}

// x = result * 2^(exponent - 64), the result's top bit set. x > 0.
inline u64 Significand(double x, int* exponent) { return static_cast<u64>(std::ldexp(std::frexp(x, exponent), 64)); }

// peak * ratio and peak * (1 - ratio), each divided by 2^E.
inline void Split(u64 peak, double ratio, Real<u64>* part, Real<u64>* remainder) {
  if (ratio == 0) {
    *part = {0, 2 * kFar};
    *remainder = {peak, 0};
    return;
  }
  int exponent;  // at most 1: a ratio of 1
  const u64 significand = Significand(ratio, &exponent);
  *part = ToReal(static_cast<u128>(peak) * significand, static_cast<u64>(-std::int64_t{exponent}));
  const int shift = 64 - 1 + exponent;  // the ratio in units of 2^-127
  const u128 fixed = shift >= 0 ? static_cast<u128>(significand) << shift
                                : static_cast<u128>(ShiftRightSticky(significand, static_cast<u64>(-shift)));
  const Real<u64> complement = ToReal((u128{1} << 127) - fixed, static_cast<u64>(-1));
  *remainder = complement.significand ? ToReal(static_cast<u128>(peak) * complement.significand, complement.exponent)
                                      : complement;
}

// d > 0.
inline Divisor ToDivisor(u64 d) {
  const u64 shift = LeadingZeros(d) - 1;
  const u64 value = d << shift;
  // The rules allow no empty cycle, but clang-tidy cannot see that here.
  const u128 most = (u128{1} << 126) - 1;
  return {value, static_cast<u64>(most / value), shift};  // NOLINT(clang-analyzer-core.DivideZero)
}

// How `dtype` stores rates of a curve with this peak.
inline Format MakeFormat(const Dtype& dtype, double initial_learning_rate) {
  int exponent;
  std::frexp(initial_learning_rate, &exponent);
  const std::int64_t field = std::int64_t{exponent} - 1 + dtype.bias;
  return {static_cast<u64>(dtype.precision), static_cast<u64>(std::max<std::int64_t>(field - 1, 0)),
          static_cast<u64>(std::max<std::int64_t>(1 - field, 0))};
}

// The peak as a Real, divided by 2^E.
inline Real<u64> Peak(const Hyperparameters& h) {
  int exponent;
  return {Significand(h.initial_learning_rate, &exponent), 0};
}

// Where a curve begins, and its warmup.
inline Frame MakeFrame(const Hyperparameters& h) {
  Frame frame;
  frame.start_step = static_cast<u64>(h.start_step) + (u64{1} << 63);
  frame.warmup_steps = static_cast<u64>(h.warmup_steps);
  frame.warmup = ToDivisor(std::max<u64>(frame.warmup_steps, 1));
  Split(Peak(h).significand, h.warmup_start, &frame.start, &frame.rise);
  return frame;
}

template <typename Bits, class Curve>
[[gnu::always_inline]] inline void FillAnywhere(const Curve& curve, const Format& format, const std::int64_t* step,
                                                std::int64_t count, void* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    static_cast<Bits*>(out)[i] =
        static_cast<Bits>(Round(format, Evaluate(curve, static_cast<u64>(step[i]) + (u64{1} << 63))));
  }
}

#if defined(__x86_64__) && __GNUC__ >= 11  // older GCC does not know "lzcnt"; clang claims to be GCC 4
// The same loop, a quarter faster, for processors that multiply and shift without touching flags (since 2013).
template <typename Bits, class Curve>
[[gnu::target("bmi,bmi2,lzcnt"), gnu::flatten]] void FillSince2013(const Curve& curve, const Format& format,
                                                                   const std::int64_t* step, std::int64_t count,
                                                                   void* out) {
  FillAnywhere<Bits>(curve, format, step, count, out);
}
#endif

template <typename Bits, class Curve>
void Fill(const Curve& curve, const Format& format, const std::int64_t* step, std::int64_t count, void* out) {
#if defined(__x86_64__) && __GNUC__ >= 11
  if (__builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt")) {
    return FillSince2013<Bits>(curve, format, step, count, out);
  }
#endif
  FillAnywhere<Bits>(curve, format, step, count, out);
}

struct Count {
  const char* name;
  std::int64_t value, least;
};

inline std::string Refusal(std::initializer_list<Count> counts) {
  for (const Count& count : counts) {
    if (count.value < count.least || count.value > kMaxSteps) {
      return std::string(count.name) + " must be at least " + (count.least < 0 ? "-2^62" : Text(count.least)) +
             " and at most 2^62. Received: " + count.name + "=" + Text(count.value);
    }
  }
  return "";
}

inline std::string RatioRefusal(const char* name, double value) {
  if (value >= 0 && value <= 1) return "";
  return std::string(name) + " is a ratio of the peak and must lie in [0, 1]. Received: " + name + "=" + Text(value);
}

// The rules that all curves share.
inline std::string SharedRefusal(const Hyperparameters& h, const Dtype& dtype) {
  const double p = h.initial_learning_rate;
  if (!(std::isfinite(p) && p > 0)) {
    return "initial_learning_rate must be finite and greater than 0: it is the peak, where warmup ends (what Keras' "
           "CosineDecay calls warmup_target). Received: initial_learning_rate=" +
           Text(p);
  }
  std::string refusal = Refusal({{"warmup_steps", h.warmup_steps, 0}, {"start_step", h.start_step, -kMaxSteps}});
  if (refusal.empty()) refusal = RatioRefusal("warmup_start", h.warmup_start);
  if (!refusal.empty()) return refusal;
  // A peak that the dtype cannot hold would train at inf or at 0 for ever. The dtype's largest number is just below
  // 2^(bias + 1), and numbers up to half of its smallest, 2^(2 - bias - precision), round to 0.
  const double most = std::ldexp(2 - std::ldexp(1, -dtype.precision), dtype.bias);  // from here it rounds to inf
  const double least = std::ldexp(1, 1 - dtype.bias - dtype.precision);             // up to here it rounds to 0
  if (dtype.bytes < 8 && (p >= most || p <= least)) {
    return std::string("initial_learning_rate must not round to ") + (p >= most ? "infinity" : "0") +
           " in dtype=" + dtype.name + ": choose a wider dtype. Received: initial_learning_rate=" + Text(p);
  }
  return "";
}

}  // namespace internal

// The error message of the first broken rule: the argument, the rule, the value received. Empty if all rules hold.
inline std::string Refusal(const DecayParameters& h, const Dtype& dtype) {
  using internal::Text;
  std::string refusal = internal::SharedRefusal(h, dtype);
  if (refusal.empty()) refusal = internal::RatioRefusal("alpha", h.alpha);
  if (refusal.empty() && DecayIndex(h.decay) == std::size(kDecays)) {
    return "decay must be 'cosine', 'linear' or 'minus_sqrt'. Received: decay='" + h.decay + "'";
  }
  if (refusal.empty()) {
    refusal = internal::Refusal({{"hold_steps", h.hold_steps, 0}, {"total_steps", h.total_steps, 1}});
  }
  if (refusal.empty() && h.warmup_steps >= h.total_steps - h.hold_steps) {  // without overflow
    return "total_steps counts warmup and hold and must be greater than warmup_steps + hold_steps. Received: "
           "warmup_steps=" +
           Text(h.warmup_steps) + ", hold_steps=" + Text(h.hold_steps) + ", total_steps=" + Text(h.total_steps);
  }
  return refusal;
}

// The hyper-parameters must have passed Refusal.
inline DecayCurve MakeCurve(const DecayParameters& h) {
  DecayCurve curve;
  static_cast<Frame&>(curve) = internal::MakeFrame(h);
  curve.decay = DecayIndex(h.decay);
  curve.decay_start = static_cast<u64>(h.warmup_steps + h.hold_steps);
  curve.total_steps = static_cast<u64>(h.total_steps);
  const u64 length = curve.total_steps - curve.decay_start;
  curve.length = internal::ToDivisor(length);
  curve.inverse_root = InverseSquareRoot(length);
  curve.peak = internal::Peak(h);
  internal::Split(curve.peak.significand, h.alpha, &curve.floor, &curve.drop);
  return curve;
}

// A curve that is ready to be evaluated, in the dtype it was asked for. H is one of the ...Parameters.
template <class H>
struct Schedule {
  typename H::Curve curve;
  Format format;
  const Dtype* dtype;

  // The learning rate at each of `count` steps, stored at `out` as `dtype`.
  void LearningRates(const std::int64_t* step, std::int64_t count, void* out) const {
    if (dtype->bytes == 2) internal::Fill<std::uint16_t>(curve, format, step, count, out);
    if (dtype->bytes == 4) internal::Fill<std::uint32_t>(curve, format, step, count, out);
    if (dtype->bytes == 8) internal::Fill<std::uint64_t>(curve, format, step, count, out);
  }
};

// The hyper-parameters must have passed Refusal.
template <class H>
Schedule<H> MakeSchedule(const H& h, const Dtype& dtype) {
  return {MakeCurve(h), internal::MakeFormat(dtype, h.initial_learning_rate), &dtype};
}

}  // namespace lrops

#endif  // LROPS_FORMULA_CURVE_H_
