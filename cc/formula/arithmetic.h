// 64-bit integer arithmetic on non-negative real numbers: Real, Product, Sum, Quotient, SquareRoot, and what the type U
// must offer.
//
// Why integers? The same curve in float64 gives almost the same bits everywhere: XLA and nvcc contract a*b+c into a
// fused multiply-add where a CPU build does not, each has its own sine, and some flush subnormals. About one step in
// 10^8 then rounds to another float32 on another path. Integer arithmetic is identical on every machine, so every path
// yields the same bits by construction. 64 significant bits keep the error below 2^-59 of the value before rounding, so
// the float32 is correctly rounded except for about one step in 10^10, where it is off by at most 0.5 + 2^-35 ulp.
// docs/exactness.md derives the bound that each function below states.
//
// There is no include, no branch on data, no allocation and no floating point here: NVRTC compiles these headers alone.
#ifndef LROPS_FORMULA_ARITHMETIC_H_
#define LROPS_FORMULA_ARITHMETIC_H_

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

// A number of a table of at most kTable numbers, by its index.
constexpr u64 kTable = 64;
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

template <class Condition, class U>
LROPS_HOST_DEVICE inline Real<U> Select(Condition condition, Real<U> yes, Real<U> no) {
  return {Select(condition, yes.significand, no.significand), Select(condition, yes.exponent, no.exponent)};
}

template <class U>
LROPS_HOST_DEVICE inline Real<U> Constant(U like, Real<u64> value) {
  return {Constant(like, value.significand), Constant(like, value.exponent)};
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
  const U far = ShiftLeft(ShiftRight(zeros, Constant(zeros, 6)), Constant(zeros, 20));  // kFar where significand is 0
  return {ShiftLeft(significand, zeros), exponent + zeros + far};
}

template <class U>
LROPS_HOST_DEVICE inline Real<U> WithSticky(Real<U> x, U cut) {
  return {x.significand | NonZero(cut), x.exponent};
}

// Less than 2^-63 of the product off.
template <class U>
LROPS_HOST_DEVICE inline Real<U> Product(Real<U> a, Real<U> b) {
  const U high = MultiplyHigh(a.significand, b.significand);
  return WithSticky(Normalized(high, a.exponent + b.exponent), a.significand * b.significand);
}

// a + b, or a - b where `minus` is all ones instead of 0. The result must lie in [0, 1), and b <= a / 2
// in a difference.
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

// ---- The index of the last of `count` ascending numbers that is not above x, and 0 if every one is: by halves.

template <class U>
LROPS_HOST_DEVICE inline U LastNotAbove(const u64* ascending, u64 count, U x) {
  U index = Constant(x, 0);
  for (u64 stride = kTable / 2; stride > 0; stride /= 2) {
    if (stride >= count) continue;
    const U next = index + Constant(x, stride);
    const U number = Take(ascending, count, Min(next, Constant(x, count - 1)));
    index = Select(next < Constant(x, count), Select(x < number, index, next), index);
  }
  return index;
}

// ---- A division by a number that is known beforehand, n / d with 0 <= n < d <= 2^62.

struct Divisor {
  u64 value;       // d shifted into [2^62, 2^63)
  u64 reciprocal;  // floor((2^126 - 1) / value)
  u64 shift;       // by how much d was shifted
};

// Less than 2^-63 of the quotient off.
template <class U>
LROPS_HOST_DEVICE inline Real<U> Quotient(U n, U value, U reciprocal, U shift) {
  const U zeros = LeadingZeros(n);
  const U numerator = ShiftLeft(n, zeros);
  U quotient = MultiplyHigh(numerator, reciprocal);  // of numerator * 2^62, at most one too small
  U rest = ShiftLeft(numerator, Constant(n, 62)) - quotient * value;
  const U fits = ShiftRight(rest - value, Constant(n, 63)) ^ Constant(n, 1);  // 1 where rest >= value
  quotient = quotient + fits;
  rest = rest - fits * value;
  return WithSticky(Normalized(quotient, zeros - shift - Constant(n, 2)), rest);
}

// ---- Roots, by Newton's method without a branch

// 1 / sqrt(n) of an integer n > 0: never above it, and less than 2^-61 of it below. Of 0 a number that means nothing.
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
// A root with finitely many bits has at most 32, since d < 2^64: it comes out exact. Any other is sticky, and less than
// 2^-59.6 off.
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

// 1 / (2 * d) of the number d / 2^64 in [1/2, 1): never above it, and from 3/4 on less than 2^-60.8 of it below.
template <class U>
LROPS_HOST_DEVICE inline Real<U> HalfReciprocal(U d) {
  const auto constant = [&](u64 value) { return Constant(d, value); };
  const U top = ShiftRight(ShiftRight(d, constant(31)) + constant(1), constant(1));  // the nearest 32 bits
  const U first = ShiftLeft(constant(~u64{0}) / top, constant(31));                  // within 2^-31, times 2^63
  const U twice_less = constant(~u64{0}) - MultiplyHigh(d, first);                   // 2 - d * first, times 2^63
  const U second = ShiftLeft(MultiplyHigh(first, twice_less), constant(1));
  return {Max(second, constant(u64{1} << 63)), constant(0)};  // it is above 1/2
}

}  // namespace lrops

#endif  // LROPS_FORMULA_ARITHMETIC_H_
