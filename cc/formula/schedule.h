// A curve that is ready to be evaluated in one dtype, and the loop over steps on a CPU. Includes every curve.
#ifndef LROPS_FORMULA_SCHEDULE_H_
#define LROPS_FORMULA_SCHEDULE_H_

#include <cstdint>

#include "formula/decay.h"
#include "formula/inverse_sqrt.h"
#include "formula/restarts.h"

namespace lrops {

// H is one of the ...Parameters.
template <class H>
struct Schedule {
  typename H::Curve curve;
  Format format;
  const Dtype* dtype;

  // The learning rate at each of `count` steps, stored at `out` as `dtype`.
  void LearningRates(const std::int64_t* step, std::int64_t count, void* out) const {
    if (dtype->bytes == 2) Fill(step, count, static_cast<std::uint16_t*>(out));
    if (dtype->bytes == 4) Fill(step, count, static_cast<std::uint32_t*>(out));
    if (dtype->bytes == 8) Fill(step, count, static_cast<std::uint64_t*>(out));
  }

 private:
  template <class Bits>
  void Fill(const std::int64_t* step, std::int64_t count, Bits* out) const {
#if defined(__x86_64__) && __GNUC__ >= 11  // older GCC does not know "lzcnt"; clang claims to be GCC 4
    if (__builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt")) {
      return FillWithBmi2(step, count, out);
    }
#endif
    FillPortably(step, count, out);
  }

  template <class Bits>
  [[gnu::always_inline]] void FillPortably(const std::int64_t* step, std::int64_t count, Bits* out) const {
    for (std::int64_t i = 0; i < count; ++i) {
      out[i] = static_cast<Bits>(Round(format, Evaluate(curve, static_cast<u64>(step[i]) + (u64{1} << 63))));
    }
  }

#if defined(__x86_64__) && __GNUC__ >= 11
  // For processors since 2013, which can multiply and shift without touching flags: 3 to 25 % faster.
  template <class Bits>
  [[gnu::target("bmi,bmi2,lzcnt"), gnu::flatten]] void FillWithBmi2(const std::int64_t* step, std::int64_t count,
                                                                    Bits* out) const {
    FillPortably(step, count, out);
  }
#endif
};

template <class H>
Schedule<H> MakeSchedule(const H& h, const Dtype& dtype) {
  return {MakeCurve(h), internal::MakeFormat(dtype, h), &dtype};
}

}  // namespace lrops

#endif  // LROPS_FORMULA_SCHEDULE_H_
