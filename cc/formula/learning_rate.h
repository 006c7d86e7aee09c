// The formula: warmup, hold, decay, restarts. Steps go in, and the bits of a correctly rounded learning rate come out.
// U is std::uint64_t in the CPU and CUDA kernels and in the Python module, and a value of the XLA graph under XLA.
#ifndef LROPS_FORMULA_LEARNING_RATE_H_
#define LROPS_FORMULA_LEARNING_RATE_H_

#include "formula/arithmetic.h"

namespace lrops {

// ---- The curves
//
// With p the peak, W = warmup_steps, H = hold_steps and s = step - start_step, clamped to >= 0, every curve begins with
//
//     rate = p * (warmup_start + (1 - warmup_start) * s / W)                  for s < W
//
// WarmupDecay goes on, from W + H to the end T, where it stays at the floor p * alpha, with
//
//     rate = p * (alpha + (1 - alpha) * g(u)),    u = (T - s) / (T - W - H)
//     g(u) = sin(pi/2 * u)^2 (cosine), u (linear), 1 - sqrt(1 - u) (minus_sqrt)
//
// WarmupInverseSqrt has neither end nor floor. With N = timescale and d = s - W - H, it goes on with
//
//     rate = p * sqrt(N / (N + d))
//
// WarmupCosineRestarts goes on in cycles of one cosine each. With d steps done of the L steps of cycle i = 0, 1, 2, ...
//
//     rate = p * (alpha + (1 - alpha) * m_mul^i * cos(pi/2 * d / L)^2)
//
// It is Keras' CosineDecayRestarts behind a warmup. Its cycle i has
//
//     L_i = first_decay_steps * t_mul^i steps, rounded to the nearest integer, ties to even,
//
// where t_mul is the exact value of the double, and the power is exact: each length is rounded once. The first step of
// cycle i is the integer W + L_0 + ... + L_(i-1). If every first_decay_steps * t_mul^i is an integer, such as for an
// integer t_mul, these are the restarts that Keras defines. Otherwise a restart of Keras falls between two steps, and
// each cycle here is less than one step longer or shorter. No error builds up, since each length is rounded from its
// own power.

constexpr u64 kCosine = 0, kLinear = 1, kMinusSqrt = 2;

// What curve.h, inverse_sqrt.h and restarts.h (beside this file) make of the hyper-parameters, once for each op. Every
// rate is divided by 2^E, the least power of two above the peak, and so lies in [0, 1).
struct Frame {
  u64 start_step;         // + 2^63, which maps the order of int64 to that of u64
  u64 warmup_steps;       // W
  Divisor warmup;         // W
  Real<u64> start, rise;  // p * warmup_start, p * (1 - warmup_start)
};

struct DecayCurve : Frame {
  u64 decay;                     // kCosine, kLinear or kMinusSqrt
  u64 decay_start, total_steps;  // W + H, T
  Divisor length;                // L = T - W - H
  Real<u64> inverse_root;        // 1 / sqrt(L), for minus_sqrt
  Real<u64> peak, floor, drop;   // p, p * alpha, p * (1 - alpha)
};

struct InverseSqrtCurve : Frame {
  u64 decay_start;         // W + H
  u64 timescale;           // N
  Real<u64> inverse_root;  // 1 / sqrt(N)
  Real<u64> peak;          // p
};

struct RestartsCurve : Frame {
  u64 total_steps;                                      // the end of the last cycle
  u64 repeats;                                          // if the table has one cycle, how often it comes; otherwise 1
  u64 count;                                            // cycles in the table
  u64 first[kTable + 1];                                // the first step of each cycle, then the end of the last
  u64 reciprocal[kTable];                               // of each length, as in Divisor
  u64 peak_significand[kTable], peak_exponent[kTable];  // p * (alpha + (1 - alpha) * m_mul^i)
  u64 drop_significand[kTable], drop_exponent[kTable];  // p * (1 - alpha) * m_mul^i
  Real<u64> floor;                                      // p * alpha
};

// One decay, from `peak` down by `drop`.
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
  return {constant(curve.decay_start),  constant(curve.total_steps),
          constant(curve.length.value), constant(curve.length.reciprocal),
          constant(curve.length.shift), Constant(s, curve.peak),
          Constant(s, curve.drop)};
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

// ---- The bends: how much of the drop is done (in the first piece of a decay) or left (in the second). Each piece is
// measured from its own end, so that nothing cancels.

// sin(pi/2 * x)^2 for 0 <= x <= 1/2, by sin(pi/2 * x) = x * (c[0] - x^2 * (c[1] - x^2 * (...))),
// c[k] = (pi/2)^(2k+1) / (2k+1)!, here times 2^63, rounded to nearest; c[0] down, since the products below are cut,
// which makes the series too large. The first term left out is below 2^-71. The square is less than 2^-60.5 off.
template <class U>
LROPS_HOST_DEVICE inline Real<U> SineSquared(Real<U> x) {
  constexpr u64 c[10] = {0xc90fdaa22168c234, 0x52aef39896f94afb, 0x0a335e33bad570e9, 0x009969667315ec2e,
                         0x000541e0d21fb9e0, 0x00001e3074fde887, 0x0000007a3d0d3406, 0x000000016fadb9f1,
                         0x000000000355d865, 0x0000000000062901};
  const U fixed = ShiftRight(x.significand, x.exponent);  // x * 2^64
  const U square = MultiplyHigh(fixed, fixed);            // x^2 * 2^64
  U series = Constant(fixed, c[9]);                       // times 2^63; the whole lies in [2^63, 2^64)
  for (int k = 8; k >= 0; --k) series = Constant(fixed, c[k]) - MultiplyHigh(square, series);
  const Real<U> sine = Product(x, {series, Constant(fixed, 0) - Constant(fixed, 1)});
  return Product(sine, sine);
}

// With v the part of the decay that is done: sqrt(v) up to v = 1/4, and then 1 - sqrt(v). The latter is computed as
// u / (1 + sqrt(v)), u = 1 - v, because the difference would cancel: at step T - 1 of a million, its relative error
// would be 2^-43.
template <class U, class Condition>
LROPS_HOST_DEVICE inline Real<U> MinusSqrt(const DecayCurve& curve, Real<U> u, U done, Condition in_second) {
  const auto constant = [&](u64 value) { return Constant(done, value); };
  const Real<U> root = SquareRoot(done, InverseSquareRoot(done), constant(curve.total_steps - curve.decay_start),
                                  Constant(done, curve.inverse_root));
  const U fixed = ShiftRight(root.significand, root.exponent);  // root * 2^64
  const U one_more = ShiftRight(fixed, constant(1)) + constant(u64{1} << 63);
  // If the root is exact (its sticky bit is 0), the difference is exact too.
  const auto exact = (root.significand & constant(1)) < constant(1);
  const Real<U> left =
      Select(exact, Normalized(constant(0) - fixed, constant(0)), Product(u, HalfReciprocal(one_more)));
  return Select(in_second, left, root);
}

// The second piece begins when fewer steps than this are left.
template <class U>
LROPS_HOST_DEVICE inline U SecondPiece(const DecayCurve& curve, U done) {
  return curve.decay == kMinusSqrt ? done * Constant(done, 3) : done;
}
template <class U>
LROPS_HOST_DEVICE inline U SecondPiece(const RestartsCurve&, U done) {
  return done;
}

// The choice is the same for every step.
template <class U, class Condition>
LROPS_HOST_DEVICE inline Real<U> Bend(const DecayCurve& curve, Real<U> x, U done, Condition in_second) {
  if (curve.decay == kLinear) return x;
  if (curve.decay == kMinusSqrt) return MinusSqrt(curve, x, done, in_second);
  return SineSquared(x);
}
template <class U, class Condition>
LROPS_HOST_DEVICE inline Real<U> Bend(const RestartsCurve&, Real<U> x, U, Condition) {
  return SineSquared(x);
}

// ---- The learning rate at `step` (an int64 plus 2^63), divided by 2^E: of a curve that ends, and of one that does not

template <class Curve, class U>
LROPS_HOST_DEVICE inline Real<U> Evaluate(const Curve& curve, U step) {
  const auto constant = [&](u64 value) { return Constant(step, value); };
  const U s = Min(Max(step, constant(curve.start_step)) - constant(curve.start_step), constant(curve.total_steps));
  const Cycle<U> cycle = FindCycle(curve, s);
  const U done = Max(s, cycle.first) - cycle.first;
  const U left = cycle.end - s;

  // Three pieces, each base +- scale * f(n / d):
  //   warmup   start + rise * s / W
  //   first    peak  - drop * f(done / L)     (hold is its first point)
  //   second   floor + drop * f(left / L)     (after the end: its last point)
  const auto in_warmup = s < constant(curve.warmup_steps);
  const auto in_second = left < SecondPiece(curve, done);
  const U n = Select(in_warmup, s, Select(in_second, left, done));
  const Real<U> x = Quotient(n, Select(in_warmup, constant(curve.warmup.value), cycle.value),
                             Select(in_warmup, constant(curve.warmup.reciprocal), cycle.reciprocal),
                             Select(in_warmup, constant(curve.warmup.shift), cycle.shift));
  const Real<U> f = Select(in_warmup, x, Bend(curve, x, done, in_second));
  const Real<U> base = Select(in_warmup, Constant(step, curve.start),  //
                              Select(in_second, Constant(step, curve.floor), cycle.peak));
  const Real<U> scale = Select(in_warmup, Constant(step, curve.rise), cycle.drop);
  const U minus = Select(in_warmup, constant(0), Select(in_second, constant(0), constant(~u64{0})));
  return Sum(base, Product(scale, f), minus);
}

template <class U>
LROPS_HOST_DEVICE inline Real<U> Evaluate(const InverseSqrtCurve& curve, U step) {
  const auto constant = [&](u64 value) { return Constant(step, value); };
  const U s = Max(step, constant(curve.start_step)) - constant(curve.start_step);
  const auto in_warmup = s < constant(curve.warmup_steps);
  const Real<U> x = Quotient(Select(in_warmup, s, constant(0)), constant(curve.warmup.value),
                             constant(curve.warmup.reciprocal), constant(curve.warmup.shift));
  // Below 2^64 for every int64 step: N and -start_step are at most 2^62.
  const U n = Max(s, constant(curve.decay_start)) - constant(curve.decay_start) + constant(curve.timescale);
  const Real<U> root =
      SquareRoot(constant(curve.timescale), Constant(step, curve.inverse_root), n, InverseSquareRoot(n));
  const Real<U> base = Select(in_warmup, Constant(step, curve.start), {constant(0), constant(2 * kFar)});
  const Real<U> scale = Select(in_warmup, Constant(step, curve.rise), Constant(step, curve.peak));
  return Sum(base, Product(scale, Select(in_warmup, x, root)), constant(0));
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

#endif  // LROPS_FORMULA_LEARNING_RATE_H_
