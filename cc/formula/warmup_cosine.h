// The formula: warmup, hold, cosine decay, restarts. Steps go in, and the bits of a correctly rounded learning rate
// come out. U is std::uint64_t in the CPU and CUDA kernels and in the Python module, and a value of the XLA graph under
// XLA.
#ifndef LROPS_FORMULA_WARMUP_COSINE_H_
#define LROPS_FORMULA_WARMUP_COSINE_H_

#include "formula/arithmetic.h"

namespace lrops {

// ---- The cosine: sin(pi/2 * x)^2 for 0 <= x <= 1/2. (The other half of the decay is 1 minus this: see Evaluate.)

// sin(pi/2 * x) = x * (c[0] - x^2 * (c[1] - x^2 * (...))), c[k] = (pi/2)^(2k+1) / (2k+1)!, here times 2^63, rounded to
// nearest. The first term left out is below 2^-71.
template <class U>
LROPS_HOST_DEVICE inline Real<U> SineSquared(Real<U> x) {
  constexpr u64 c[10] = {0xc90fdaa22168c235, 0x52aef39896f94afb, 0x0a335e33bad570e9, 0x009969667315ec2e,
                         0x000541e0d21fb9e0, 0x00001e3074fde887, 0x0000007a3d0d3406, 0x000000016fadb9f1,
                         0x000000000355d865, 0x0000000000062901};
  const U fixed = ShiftRight(x.significand, x.exponent);  // x * 2^64
  const U square = MultiplyHigh(fixed, fixed);            // x^2 * 2^64
  U series = Constant(fixed, c[9]);
  for (int k = 8; k >= 0; --k) series = Constant(fixed, c[k]) - MultiplyHigh(square, series);
  const U sine = MultiplyHigh(x.significand, series);  // times 2^(63 + x.exponent), in [2^62, 2^64)
  const U twice = x.exponent + x.exponent;
  return Normalized(MultiplyHigh(sine, sine), twice - Constant(fixed, 2));
}

// ---- The curves
//
// With p the peak, W = warmup_steps and s = step - start_step, clamped to >= 0, both curves begin with
//
//     rate = p * (warmup_start + (1 - warmup_start) * s / W)                  where s < W
//
// and go on in cycles of one cosine each, down to the floor p * alpha, where they stay after the last. With d steps
// done of the L steps of cycle i = 0, 1, 2, ...
//
//     rate = p * (alpha + (1 - alpha) * m_mul^i * cos(pi/2 * d / L)^2)
//
// WarmupCosineDecay is one such cycle, behind a hold of H steps: it begins at W + H and ends at T.
//
// WarmupCosineRestarts is Keras' CosineDecayRestarts behind a warmup. Its cycle i has
//
//     L_i = first_decay_steps * t_mul^i steps, rounded to the nearest integer, ties to even,
//
// where the double t_mul is taken at its exact value and the power is exact: rounded once. Its first step is the
// integer W + L_0 + ... + L_(i-1). Where every first_decay_steps * t_mul^i is an integer, as for every integer t_mul,
// these are the restarts that Keras defines. Elsewhere a restart of Keras falls between two steps, and each cycle here
// is less than a step longer or shorter than there; no error builds up, since each length is rounded from its own
// power.

// What curve.h and restarts.h (beside this file) make of the hyper-parameters, once for each op. Every rate is divided
// by 2^E, the least power of two above the peak, and so lies in [0, 1).
struct Frame {
  u64 start_step;          // + 2^63, which maps the order of int64 to that of u64
  u64 warmup_steps;        // W
  u64 total_steps;         // the end of the last cycle
  Divisor warmup;          // W
  Real<u64> start, floor;  // p * warmup_start, p * alpha
  Real<u64> rise;          // p * (1 - warmup_start)
};

struct DecayCurve : Frame {
  u64 decay_start;       // W + H
  Divisor decay;         // T - W - H
  Real<u64> peak, drop;  // p, p * (1 - alpha)
};

struct RestartsCurve : Frame {
  u64 repeats;             // how often the last cycle comes, where there is but one in the table; else 1
  u64 count;               // cycles in the table
  u64 first[kTable + 1];   // of each cycle its first step, of the last one its end too
  u64 reciprocal[kTable];  // of the Divisor of each length
  u64 peak_significand[kTable], peak_exponent[kTable];  // p * (alpha + (1 - alpha) * m_mul^i)
  u64 drop_significand[kTable], drop_exponent[kTable];  // p * (1 - alpha) * m_mul^i
};

// One cosine, from `peak` down by `drop`.
template <class U>
struct Cycle {
  U first, end;                // steps, counted from start_step
  U value, reciprocal, shift;  // of the Divisor end - first
  Real<U> peak, drop;
};

// The cycle in which step s lies, or the one that comes next.
template <class U>
LROPS_HOST_DEVICE inline Cycle<U> FindCycle(const DecayCurve& curve, U s) {
  const auto constant = [&](u64 value) { return Constant(s, value); };
  return {constant(curve.decay_start),
          constant(curve.total_steps),
          constant(curve.decay.value),
          constant(curve.decay.reciprocal),
          constant(curve.decay.shift),
          {constant(curve.peak.significand), constant(curve.peak.exponent)},
          {constant(curve.drop.significand), constant(curve.drop.exponent)}};
}

template <class U>
LROPS_HOST_DEVICE inline Cycle<U> FindCycle(const RestartsCurve& curve, U s) {
  const U index = LastNotAbove(curve.first, curve.count, s);
  const auto take = [&](const u64* table) { return Take(table, curve.count, index); };
  U first = take(curve.first);
  U end = take(curve.first + 1);
  const U length = end - first;
  if (curve.repeats > 1) {  // the same for every step
    const U done = Min((Max(s, first) - first) / length, Constant(s, curve.repeats - 1)) * length;
    first = first + done;
    end = end + done;
  }
  const U shift = LeadingZeros(length) - Constant(s, 1);
  return {first,
          end,
          ShiftLeft(length, shift),
          take(curve.reciprocal),
          shift,
          {take(curve.peak_significand), take(curve.peak_exponent)},
          {take(curve.drop_significand), take(curve.drop_exponent)}};
}

// The learning rate at `step` (an int64 plus 2^63), divided by 2^E.
template <class Curve, class U>
LROPS_HOST_DEVICE inline Real<U> Evaluate(const Curve& curve, U step) {
  const auto constant = [&](u64 value) { return Constant(step, value); };
  const U s = Min(Max(step, constant(curve.start_step)) - constant(curve.start_step), constant(curve.total_steps));
  const Cycle<U> cycle = FindCycle(curve, s);
  const U done = Max(s, cycle.first) - cycle.first;
  const U left = cycle.end - s;

  // Three pieces, each base +- scale * f(n / d):
  //   warmup         start + rise * s / W
  //   first half     peak  - drop * sin(pi/2 * done / L)^2     (hold is its first point)
  //   second half    floor + drop * sin(pi/2 * left / L)^2     (after the end: its last point)
  // Each half measures from its own exact end, so that nothing cancels and n / d <= 1/2.
  const auto in_warmup = s < constant(curve.warmup_steps);
  const auto in_second_half = left < done;
  const auto pick = [&](U warmup, U first_half, U second_half) {
    return Select(in_warmup, warmup, Select(in_second_half, second_half, first_half));
  };
  const Real<U> x = Quotient(pick(s, done, left), Select(in_warmup, constant(curve.warmup.value), cycle.value),
                             Select(in_warmup, constant(curve.warmup.reciprocal), cycle.reciprocal),
                             Select(in_warmup, constant(curve.warmup.shift), cycle.shift));
  const Real<U> bend = SineSquared(x);
  const Real<U> f = {Select(in_warmup, x.significand, bend.significand), Select(in_warmup, x.exponent, bend.exponent)};
  const Real<U> base = {
      pick(constant(curve.start.significand), cycle.peak.significand, constant(curve.floor.significand)),
      pick(constant(curve.start.exponent), cycle.peak.exponent, constant(curve.floor.exponent))};
  const Real<U> scale = {Select(in_warmup, constant(curve.rise.significand), cycle.drop.significand),
                         Select(in_warmup, constant(curve.rise.exponent), cycle.drop.exponent)};
  return Sum(base, Product(scale, f), pick(constant(0), constant(~u64{0}), constant(0)));
}

// ---- Rounding, once, to the output dtype

// How an IEEE binary format (float16, bfloat16, float32, float64) stores numbers that are divided by 2^E.
struct Format {
  u64 precision;  // significand bits, the hidden one included: 11, 8, 24, 53
  u64 top;        // the exponent field, less one, of numbers in [1/2, 1); 0 where those are subnormal
  u64 below;      // by how many powers of two those are subnormal, else 0
};

// The bits of `x` rounded to nearest, ties to even, subnormals included. It must not overflow.
template <class U>
LROPS_HOST_DEVICE inline U Round(const Format& format, Real<U> x) {
  const auto constant = [&](u64 value) { return Constant(x.exponent, value); };
  const U exponent = x.exponent + constant(format.below);
  const U larger = Max(exponent, constant(format.top));
  const U significand = ShiftRightSticky(x.significand, larger - constant(format.top));
  const U kept = ShiftRight(significand, constant(64 - format.precision));
  const U rest = ShiftRight(ShiftLeft(significand, constant(format.precision)), constant(1));  // a half ulp is 2^62
  const U up = ShiftRight(rest + (kept & constant(1)) + constant((u64{1} << 62) - 1), constant(63));
  // The hidden bit of `kept` adds one to the field, and a carry out of the significand another: both are right.
  return ShiftLeft(larger - exponent, constant(format.precision - 1)) + kept + up;
}

}  // namespace lrops

#endif  // LROPS_FORMULA_WARMUP_COSINE_H_
