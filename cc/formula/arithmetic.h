// Non-negative real numbers in 64-bit integers: the number type U, Real, its arithmetic, and Round, which gives the
// bits of a floating-point number.
//
// Why integers? In float64 the paths would differ: XLA and nvcc contract a*b+c into a fused multiply-add and a CPU
// build does not, each has its own sine, and some flush subnormals. About one step in 10^8 would then round to another
// float32 on another path. Integer arithmetic is identical on every machine, so every path yields the same bits. 64
// significant bits keep the error below 2^-59 of the value before rounding, so the float32 is correctly rounded except
// for about one step in 10^10, where it is off by at most 0.5 + 2^-35 ulp. docs/exactness.md derives the bound that
// each function states.
//
// NVRTC compiles these headers alone, so they use no include, no allocation, no floating point and no branch on data.
#ifndef LROPS_FORMULA_ARITHMETIC_H_
#define LROPS_FORMULA_ARITHMETIC_H_

#ifdef __CUDACC__
#define LROPS_HOST_DEVICE __host__ __device__
#else
#define LROPS_HOST_DEVICE
#endif

namespace lrops {

using u64 = unsigned long long;

// ---- What U must offer: + - * / & | ^ < and the functions below, here for u64. Shifts by 64 or more give 0.

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

// table[index]. A table has at most kTable numbers.
constexpr u64 kTable = 64;
LROPS_HOST_DEVICE inline u64 Gather(const u64* table, u64 /*count*/, u64 index) { return table[index]; }

// ---- A non-negative real number: significand * 2^-(64 + exponent). The top bit of the significand is set. Its lowest
// bit is sticky: it is also set if anything below it was cut off, so that a tie seen later is really a tie. Zero has
// significand 0 and an exponent of kZeroExponent or more, which exceeds every shift.

constexpr u64 kZeroExponent = u64{1} << 20;

template <class U>
struct Real {
  U significand;
  U exponent;
};

template <class Condition, class U>
LROPS_HOST_DEVICE inline Real<U> Select(Condition condition, Real<U> yes, Real<U> no) {
  return {Select(condition, yes.significand, no.significand), Select(condition, yes.exponent, no.exponent)};
}

template <class U>
LROPS_HOST_DEVICE inline Real<U> Constant(U like, Real<u64> value) {
  return {Constant(like, value.significand), Constant(like, value.exponent)};
}

template <class U>
LROPS_HOST_DEVICE inline Real<U> Zero(U like) {
  return {Constant(like, 0), Constant(like, 2 * kZeroExponent)};
}

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
  const U if_zero = ShiftLeft(ShiftRight(zeros, Constant(zeros, 6)), Constant(zeros, 20));  // kZeroExponent, or 0
  return {ShiftLeft(significand, zeros), exponent + zeros + if_zero};
}

template <class U>
LROPS_HOST_DEVICE inline Real<U> WithSticky(Real<U> x, U cut) {
  return {x.significand | NonZero(cut), x.exponent};
}

// The error is below 2^-63 of the product.
template <class U>
LROPS_HOST_DEVICE inline Real<U> Product(Real<U> a, Real<U> b) {
  const U high = MultiplyHigh(a.significand, b.significand);
  return WithSticky(Normalized(high, a.exponent + b.exponent), a.significand * b.significand);
}

// a + b if `minus` is 0, a - b if it is all ones. The result must lie in [0, 1); a difference needs b <= a / 2.
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

// ---- Binary search: the index of the last of `count` ascending numbers that is <= x, which is one less than
// std::upper_bound gives. If all are above x: 0.

template <class U>
LROPS_HOST_DEVICE inline U IndexBeforeUpperBound(const u64* ascending, u64 count, U x) {
  U index = Constant(x, 0);
  for (u64 stride = kTable / 2; stride > 0; stride /= 2) {
    if (stride >= count) continue;
    const U next = index + Constant(x, stride);
    const U number = Gather(ascending, count, Min(next, Constant(x, count - 1)));
    index = Select(next < Constant(x, count), Select(x < number, index, next), index);
  }
  return index;
}

// ---- n / d with 0 <= n < d <= 2^62. The host knows d, and computes its reciprocal.

template <class U>
struct Divisor {
  U value;       // d shifted into [2^62, 2^63)
  U reciprocal;  // floor((2^126 - 1) / value)
  U shift;       // by how much d was shifted
};

template <class Condition, class U>
LROPS_HOST_DEVICE inline Divisor<U> Select(Condition condition, Divisor<U> yes, Divisor<U> no) {
  return {Select(condition, yes.value, no.value), Select(condition, yes.reciprocal, no.reciprocal),
          Select(condition, yes.shift, no.shift)};
}

template <class U>
LROPS_HOST_DEVICE inline Divisor<U> Constant(U like, Divisor<u64> d) {
  return {Constant(like, d.value), Constant(like, d.reciprocal), Constant(like, d.shift)};
}

// The error is below 2^-63 of the quotient.
template <class U>
LROPS_HOST_DEVICE inline Real<U> Quotient(U n, Divisor<U> d) {
  const U zeros = LeadingZeros(n);
  const U numerator = ShiftLeft(n, zeros);
  U quotient = MultiplyHigh(numerator, d.reciprocal);  // of numerator * 2^62, at most one too small
  U rest = ShiftLeft(numerator, Constant(n, 62)) - quotient * d.value;
  const U fits = ShiftRight(rest - d.value, Constant(n, 63)) ^ Constant(n, 1);  // 1 where rest >= d.value
  quotient = quotient + fits;
  rest = rest - fits * d.value;
  return WithSticky(Normalized(quotient, zeros - d.shift - Constant(n, 2)), rest);
}

// ---- Roots and reciprocals, by Newton's method without a branch

// 1 / sqrt(n) of an integer n > 0. The result is never too large, and too small by less than 2^-61 of it. The result
// for 0 has no meaning.
template <class U>
LROPS_HOST_DEVICE inline Real<U> InverseSquareRoot(U n) {
  const auto constant = [&](u64 value) { return Constant(n, value); };
  const U zeros = LeadingZeros(n);
  const U odd = zeros & constant(1);
  const U m = ShiftRight(ShiftLeft(n, zeros), odd);  // n * 2^(zeros - odd), in [2^62, 2^64)
  // y = 1 / sqrt(m / 2^64), in (1, 2], here times 2^62: a parabola, within 2.5 %.
  U y = constant(u64{0xd243} << 48) - MultiplyHigh(m, constant(u64{0x68de} << 48));
  y = constant(u64{0xaaef} << 48) - MultiplyHigh(m, y);
  y = ShiftLeft(y, constant(1));  // from here on times 2^63
  // y * (3 - m * y^2) / 2 is never above the root. The error is squared, times 3/2: 2^-10, 2^-19, 2^-38, 2^-76.
  for (int i = 0; i < 4; ++i) {
    const U part = MultiplyHigh(MultiplyHigh(y, y), m);  // at most 2 too small, as the next line allows for
    y = ShiftLeft(MultiplyHigh(y, constant((u64{3} << 62) - 2) - part), constant(1));
  }
  y = Max(y, constant(u64{1} << 63));  // the root is above 1
  return {y, ShiftRight(constant(64) + odd - zeros, constant(1)) - constant(1)};
}

// sqrt(n / d) of integers 0 <= n <= d, n < 2^63, from 1 / sqrt(n) and 1 / sqrt(d), each as InverseSquareRoot gives it.
// A root with finitely many bits has at most 32, since d < 2^64: the result is exact. Any other result is sticky, and
// its error is below 2^-59.6 of it.
template <class U>
LROPS_HOST_DEVICE inline Real<U> SquareRoot(U n, Real<U> inverse_root_n, U d, Real<U> inverse_root_d) {
  const auto constant = [&](u64 value) { return Constant(n, value); };
  const Real<U> numerator = Normalized(n, constant(0) - constant(64));
  const Real<U> denominator = Normalized(d, constant(0) - constant(64));
  const Real<U> root = Product(Product(inverse_root_n, inverse_root_d), numerator);
  // The nearest number of 32 bits is the root if its square, times d, is n.
  const U bits =
      ShiftRight(root.significand, constant(32)) + (ShiftRight(root.significand, constant(31)) & constant(1));
  const Real<U> near = Normalized(bits, root.exponent - constant(32));
  const Real<U> found = Product(Product(near, near), denominator);
  return Select((found.significand ^ numerator.significand) < constant(1), near, WithSticky(root, constant(1)));
}

// 1 / (2 * d) of the number d / 2^64 in [1/2, 1). The result is never too large; from 3/4 on, it is too small by less
// than 2^-60.8 of it.
template <class U>
LROPS_HOST_DEVICE inline Real<U> HalfReciprocal(U d) {
  const auto constant = [&](u64 value) { return Constant(d, value); };
  const U top = ShiftRight(ShiftRight(d, constant(31)) + constant(1), constant(1));  // the nearest 32 bits
  const U first = ShiftLeft(constant(~u64{0}) / top, constant(31));                  // within 2^-31, times 2^63
  const U twice_less = constant(~u64{0}) - MultiplyHigh(d, first);                   // 2 - d * first, times 2^63
  const U second = ShiftLeft(MultiplyHigh(first, twice_less), constant(1));
  return {Max(second, constant(u64{1} << 63)), constant(0)};  // it is above 1/2
}

// ---- Rounding to the output dtype, the only one of a rate

// How an IEEE binary format (float16, bfloat16, float32, float64) stores numbers that are divided by 2^E.
struct Format {
  u64 precision;       // significand bits, the hidden one included: 11, 8, 24, 53
  u64 exponent_field;  // of numbers in [1/2, 1), less one; 0 if those are subnormal
  u64 subnormal;       // by how many powers of two those are subnormal, or 0
};

// The bits of `x` rounded to nearest, ties to even, subnormals included. It must not overflow.
template <class U>
LROPS_HOST_DEVICE inline U Round(const Format& format, Real<U> x) {
  const auto constant = [&](u64 value) { return Constant(x.exponent, value); };
  const U exponent = x.exponent + constant(format.subnormal);
  const U larger = Max(exponent, constant(format.exponent_field));
  const U significand = ShiftRightSticky(x.significand, larger - constant(format.exponent_field));
  const U kept = ShiftRight(significand, constant(64 - format.precision));
  const U rest = ShiftRight(ShiftLeft(significand, constant(format.precision)), constant(1));  // a half ulp is 2^62
  const U up = ShiftRight(rest + (kept & constant(1)) + constant((u64{1} << 62) - 1), constant(63));
  // The hidden bit of `kept` adds one to the field, and a carry out of the significand another: both are right.
  return ShiftLeft(larger - exponent, constant(format.precision - 1)) + kept + up;
}

}  // namespace lrops

#endif  // LROPS_FORMULA_ARITHMETIC_H_
