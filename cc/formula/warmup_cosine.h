// THE formula: warmup, hold, cosine decay. Steps go in, the bits of a correctly rounded learning rate come out.
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

// ---- What U must offer, written out for u64: + - * & | ^ < and the functions below. Shifts by 64 or more give 0.

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

// ---- The curve

// What curve.h (beside this file) makes of the hyper-parameters, once for each op. Every rate is divided by 2^E, the
// least power of two above the peak, and so lies in [0, 1).
struct Curve {
  u64 start_step;                // + 2^63, which maps the order of int64 to that of u64
  u64 warmup_steps;              // W
  u64 decay_start;               // W + H
  u64 first_half_end;            // the first step counted from decay_start that lies in the second half of the decay
  u64 total_steps;               // T
  Divisor warmup;                // W
  Divisor decay;                 // T - W - H
  Real<u64> start, peak, floor;  // p * warmup_start, p, p * alpha
  Real<u64> rise, drop;          // p * (1 - warmup_start), p * (1 - alpha)
};

// The learning rate at `step` (an int64 plus 2^63), divided by 2^E.
template <class U>
LROPS_HOST_DEVICE inline Real<U> Evaluate(const Curve& curve, U step) {
  const auto constant = [&](u64 value) { return Constant(step, value); };
  const U s = Min(Max(step, constant(curve.start_step)) - constant(curve.start_step), constant(curve.total_steps));
  const U decayed = Max(s, constant(curve.decay_start)) - constant(curve.decay_start);

  // Three pieces, each base +- scale * f(n / d):
  //   warmup         start + rise * s / W
  //   first half     peak  - drop * sin(pi/2 * (s - W - H) / D)^2     (hold is its first point)
  //   second half    floor + drop * sin(pi/2 * (T - s) / D)^2         (after the end: its last point)
  // Each half measures from its own exact end, so that nothing cancels and n / d <= 1/2.
  const auto in_warmup = s < constant(curve.warmup_steps);
  const auto in_first_half = decayed < constant(curve.first_half_end);
  const auto pick = [&](u64 warmup, u64 first_half, u64 second_half) {
    return Select(in_warmup, constant(warmup), Select(in_first_half, constant(first_half), constant(second_half)));
  };
  const U n = Select(in_warmup, s, Select(in_first_half, decayed, constant(curve.total_steps) - s));
  const Real<U> x = Quotient(n, Select(in_warmup, constant(curve.warmup.value), constant(curve.decay.value)),
                             Select(in_warmup, constant(curve.warmup.reciprocal), constant(curve.decay.reciprocal)),
                             Select(in_warmup, constant(curve.warmup.shift), constant(curve.decay.shift)));
  const Real<U> bend = SineSquared(x);
  const Real<U> f = {Select(in_warmup, x.significand, bend.significand), Select(in_warmup, x.exponent, bend.exponent)};
  const Real<U> base = {pick(curve.start.significand, curve.peak.significand, curve.floor.significand),
                        pick(curve.start.exponent, curve.peak.exponent, curve.floor.exponent)};
  const Real<U> scale = {pick(curve.rise.significand, curve.drop.significand, curve.drop.significand),
                         pick(curve.rise.exponent, curve.drop.exponent, curve.drop.exponent)};
  return Sum(base, Product(scale, f), pick(0, ~u64{0}, 0));
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
