// The formula: the learning rate at a step, with warmup, hold and decay or restarts.
// U is u64 in the CPU and CUDA kernels and in the Python module, and a value of the XLA graph under XLA.
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
// WarmupDecay then holds p up to W + H, and decays to p * alpha, where it stays from T = total_steps on:
//
//     rate = p * (alpha + (1 - alpha) * g(u)),    u = (T - s) / (T - W - H)
//     g(u) = sin(pi/2 * u)^2 (cosine), u (linear), 1 - sqrt(1 - u) (minus_sqrt)
//
// WarmupInverseSqrt holds too, and has neither end nor floor. With N = timescale and d = s - W - H:
//
//     rate = p * sqrt(N / (N + d))
//
// WarmupCosineRestarts goes on in cycles of one cosine each. With d steps done of the L_i steps of cycle i = 0, 1, ...
//
//     rate = p * (alpha + (1 - alpha) * m_mul^i * cos(pi/2 * d / L_i)^2)
//     L_i = first_decay_steps * t_mul^i, rounded to the nearest integer, ties to even

constexpr u64 kCosine = 0, kLinear = 1, kMinusSqrt = 2;

// Exact constants, which constants.h computes once for each op. Every rate is divided by 2^E, the least power of two
// above the peak, and so lies in [0, 1).
struct CommonConstants {
  u64 start_step;         // + 2^63, which maps the order of int64 to that of u64
  u64 warmup_steps;       // W
  Divisor<u64> warmup;    // W
  Real<u64> start, rise;  // p * warmup_start, p * (1 - warmup_start)
};

struct DecayCurve : CommonConstants {
  u64 decay;                     // kCosine, kLinear or kMinusSqrt
  u64 decay_start, total_steps;  // W + H, T
  Divisor<u64> length;           // L = T - W - H
  Real<u64> inverse_root;        // 1 / sqrt(L), for minus_sqrt
  Real<u64> peak, floor, drop;   // p, p * alpha, p * (1 - alpha)
};

struct InverseSqrtCurve : CommonConstants {
  u64 decay_start;         // W + H
  u64 timescale;           // N
  Real<u64> inverse_root;  // 1 / sqrt(N)
  Real<u64> peak;          // p
};

struct RestartsCurve : CommonConstants {
  static constexpr u64 decay = kCosine;
  u64 total_steps;                                      // the end of the last cycle
  u64 repeats;                                          // of the table's cycle if it has only one; otherwise 1
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
  U first, end;       // steps, counted from start_step
  Divisor<U> length;  // end - first
  Real<U> peak, drop;
};

// The cycle that contains step s, or the first one if s is earlier.
template <class U>
LROPS_HOST_DEVICE inline Cycle<U> FindCycle(const DecayCurve& curve, U s) {
  return {Constant(s, curve.decay_start), Constant(s, curve.total_steps), Constant(s, curve.length),
          Constant(s, curve.peak), Constant(s, curve.drop)};
}

template <class U>
LROPS_HOST_DEVICE inline Cycle<U> FindCycle(const RestartsCurve& curve, U s) {
  const U index = IndexBeforeUpperBound(curve.first, curve.count, s);
  const auto gather = [&](const u64* table) { return Gather(table, curve.count, index); };
  U first = gather(curve.first);
  U end = gather(curve.first + 1);
  const U length = end - first;
  if (curve.repeats > 1) {  // the same for every step
    const U done = Min((Max(s, first) - first) / length, Constant(s, curve.repeats - 1)) * length;
    first = first + done;
    end = end + done;
  }
  const U shift = LeadingZeros(length) - Constant(s, 1);
  return {first,
          end,
          {ShiftLeft(length, shift), gather(curve.reciprocal), shift},
          {gather(curve.peak_significand), gather(curve.peak_exponent)},
          {gather(curve.drop_significand), gather(curve.drop_exponent)}};
}

// ---- The shapes of a decay: how much of the drop is done (in its first piece) or left (in its second). Each piece is
// measured from its own end, so that nothing cancels.

// sin(pi/2 * x)^2 for 0 <= x <= 1/2, by sin(pi/2 * x) = x * (c[0] - x^2 * (c[1] - x^2 * (...))),
// c[k] = (pi/2)^(2k+1) / (2k+1)!, here times 2^63 and rounded to nearest. c[0] is rounded down, because the products
// below are cut, which makes the series too large. The first omitted term is below 2^-71. The error is below 2^-60.5.
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

// Let v be the fraction of the decay that is done, and u = 1 - v. The result is sqrt(v) up to v = 1/4, and 1 - sqrt(v)
// after it. The latter is computed as u / (1 + sqrt(v)), because the difference would cancel: at step T - 1 of a
// million, its relative error would be 2^-43.
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
template <class Curve, class U>
LROPS_HOST_DEVICE inline U StepsLeftAtSecondPiece(const Curve& curve, U done) {
  return curve.decay == kMinusSqrt ? done * Constant(done, 3) : done;
}

// The branches are the same for every step.
template <class U, class Condition>
LROPS_HOST_DEVICE inline Real<U> DecayShape(const DecayCurve& curve, Real<U> x, U done, Condition in_second) {
  if (curve.decay == kLinear) return x;
  if (curve.decay == kMinusSqrt) return MinusSqrt(curve, x, done, in_second);
  return SineSquared(x);
}
template <class U, class Condition>
LROPS_HOST_DEVICE inline Real<U> DecayShape(const RestartsCurve&, Real<U> x, U, Condition) {
  return SineSquared(x);
}

// ---- The learning rate at `step` (an int64 plus 2^63), divided by 2^E: for curves that end, and for one that does not

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
  const auto in_second = left < StepsLeftAtSecondPiece(curve, done);
  const U n = Select(in_warmup, s, Select(in_second, left, done));
  const Real<U> x = Quotient(n, Select(in_warmup, Constant(step, curve.warmup), cycle.length));
  const Real<U> f = Select(in_warmup, x, DecayShape(curve, x, done, in_second));
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
  const Real<U> x = Quotient(Select(in_warmup, s, constant(0)), Constant(step, curve.warmup));
  // Below 2^64 for every int64 step: N and -start_step are at most 2^62.
  const U n = Max(s, constant(curve.decay_start)) - constant(curve.decay_start) + constant(curve.timescale);
  const Real<U> root =
      SquareRoot(constant(curve.timescale), Constant(step, curve.inverse_root), n, InverseSquareRoot(n));
  const Real<U> base = Select(in_warmup, Constant(step, curve.start), Zero(step));
  const Real<U> scale = Select(in_warmup, Constant(step, curve.rise), Constant(step, curve.peak));
  return Sum(base, Product(scale, Select(in_warmup, x, root)), constant(0));
}

}  // namespace lrops

#endif  // LROPS_FORMULA_LEARNING_RATE_H_
