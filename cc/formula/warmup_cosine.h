// THE formula: warmup, hold, cosine decay, restarts. Steps go in, the bits of a correctly rounded learning rate come
// out.
//
// Called by the CPU and CUDA kernels and by the Python module (U = std::uint64_t) and by the XLA lowering (U = a value
// in the XLA graph). It must not know any of them: no include, no branch on data, no allocation, no floating point.
//
// Why integers? The same curve in float64 gives almost the same bits everywhere: XLA and nvcc contract a*b+c into a
// fused multiply-add where a CPU build does not, each has a sine of its own, and some flush subnormals. About one step
// in 10^8 then rounds to another float32 on another path. 64-bit integer arithmetic has one meaning on every machine,
// so every path yields the same bits by construction; and 64 significant bits leave the result within 2^-59 of the true
// value, so it is correctly rounded but for one step in 10^10 (there it is off by 0.5 + 2^-35 ulp of a float32).
#ifndef LROPS_FORMULA_WARMUP_COSINE_H_
#define LROPS_FORMULA_WARMUP_COSINE_H_

#ifdef __CUDACC__
#define LROPS_HOST_DEVICE __host__ __device__
#else
#define LROPS_HOST_DEVICE
#endif

namespace lrops {

using u64 = unsigned long long;

// ---- What U must offer, written out for u64: + - * / & | ^ < and the functions below. Shifts by 64 or more give 0.

LROPS_HOST_DEVICE inline u64 Constant(u64 /*like*/, u64 value) { return value; }
LROPS_HOST_DEVICE inline u64 Select(bool condition, u64 yes, u64 no) { return condition ? yes : no; }
LROPS_HOST_DEVICE inline u64 Min(u64 a, u64 b) { return a < b ? a : b; }
LROPS_HOST_DEVICE inline u64 Max(u64 a, u64 b) { return a < b ? b : a; }
LROPS_HOST_DEVICE inline u64 ShiftLeft(u64 x, u64 by) { return by < 64 ? x << by : 0; }
LROPS_HOST_DEVICE inline u64 ShiftRight(u64 x, u64 by) { return by < 64 ? x >> by : 0; }

// The number of zeros above the highest set bit; 64 for zero.
LROPS_HOST_DEVICE inline u64 LeadingZeros(u64 x) {
#ifdef __CUDA_ARCH__
  return static_cast<u64>(__clzll(static_cast<long long>(x)));
#else
  return x ? static_cast<u64>(__builtin_clzll(x)) : 64;
#endif
}

// The high half of the 128-bit product.
LROPS_HOST_DEVICE inline u64 MultiplyHigh(u64 a, u64 b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  return static_cast<u64>((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
}

// The index of the last of `count` ascending numbers that is not above x, and 0 where every one is; and a number by its
// index. A table has at most kTable numbers.
constexpr u64 kTable = 64;

LROPS_HOST_DEVICE inline u64 LastNotAbove(const u64* ascending, u64 count, u64 x) {
  u64 index = 0;
  for (u64 stride = kTable / 2; stride > 0; stride /= 2) {
    const u64 next = index + stride;
    index = next < count && ascending[next] <= x ? next : index;
  }
  return index;
}

LROPS_HOST_DEVICE inline u64 Take(const u64* table, u64 /*count*/, u64 index) { return table[index]; }

// ---- A non-negative real number: significand * 2^-(64 + exponent), the top bit of the significand set. Its lowest bit
// is "sticky": it is also set where anything below it was cut off, so that a tie seen later is really a tie. Zero has
// significand 0 and an exponent above kFar, which is farther than any shift.

constexpr u64 kFar = u64{1} << 20;

template <class U>
struct Real {
  U significand;
  U exponent;
};

template <class U>
LROPS_HOST_DEVICE inline U NonZero(U x) {  // 0 or 1
  return ShiftRight(x | (Constant(x, 0) - x), Constant(x, 63));
}

template <class U>
LROPS_HOST_DEVICE inline U ShiftRightSticky(U x, U by) {
  const U kept = ShiftRight(x, by);
  return kept | NonZero(ShiftLeft(kept, by) ^ x);
}

template <class U>
LROPS_HOST_DEVICE inline Real<U> Normalized(U significand, U exponent) {
  const U zeros = LeadingZeros(significand);
  const U far = ShiftLeft(ShiftRight(zeros, Constant(zeros, 6)), Constant(zeros, 20));  // kFar where significand is 0
  return {ShiftLeft(significand, zeros), exponent + zeros + far};
}

template <class U>
LROPS_HOST_DEVICE inline Real<U> Product(Real<U> a, Real<U> b) {
  const U high = MultiplyHigh(a.significand, b.significand);
  return Normalized(high | NonZero(a.significand * b.significand), a.exponent + b.exponent);
}

// a + b, or a - b where `minus` is all ones instead of 0. The caller sees to it that the result lies in [0, 1) and that
// b <= a / 2 in a difference.
template <class U>
LROPS_HOST_DEVICE inline Real<U> Sum(Real<U> a, Real<U> b, U minus) {
  const U exponent = Min(a.exponent, b.exponent);
  const auto swap = b.exponent < a.exponent;
  const U large = Select(swap, b.significand, a.significand);
  const U small = ShiftRightSticky(Select(swap, a.significand, b.significand), Max(a.exponent, b.exponent) - exponent);
  const U sum = large + ((small ^ minus) - minus);
  const U one = Constant(sum, 1);
  const U carry = Select(sum < large, one, Constant(sum, 0)) & (one + minus);
  return Normalized(ShiftRight(sum, carry) | (sum & carry) | ShiftLeft(carry, Constant(sum, 63)), exponent - carry);
}

// ---- A division by a number that is known beforehand, n / d with 0 <= n < d <= 2^62.

struct Divisor {
  u64 value;       // d shifted into [2^62, 2^63)
  u64 reciprocal;  // floor((2^126 - 1) / value)
  u64 shift;       // by how much d was shifted
};

template <class U>
LROPS_HOST_DEVICE inline Real<U> Quotient(U n, U value, U reciprocal, U shift) {
  const U zeros = LeadingZeros(n);
  const U numerator = ShiftLeft(n, zeros);
  U quotient = MultiplyHigh(numerator, reciprocal);  // of numerator * 2^62, at most one too small
  U rest = ShiftLeft(numerator, Constant(n, 62)) - quotient * value;
  const U fits = ShiftRight(rest - value, Constant(n, 63)) ^ Constant(n, 1);  // 1 where rest >= value
  quotient = quotient + fits;
  rest = rest - fits * value;
  return Normalized(quotient | NonZero(rest), zeros - shift - Constant(n, 2));
}

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

// The bits of `x` rounded to nearest, ties to even, subnormals included. The caller sees to it that nothing overflows.
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
