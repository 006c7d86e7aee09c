// The steps of the formula as C functions, for test_arithmetic.py. Each Real is two numbers, significand and exponent.
#include "formula/learning_rate.h"

using lrops::Real;
using lrops::u64;

extern "C" {

void product(const u64* a, const u64* b, u64* out) {
  const Real<u64> result = Product(Real<u64>{a[0], a[1]}, Real<u64>{b[0], b[1]});
  out[0] = result.significand, out[1] = result.exponent;
}

void sum(const u64* a, const u64* b, u64 minus, u64* out) {
  const Real<u64> result = Sum(Real<u64>{a[0], a[1]}, Real<u64>{b[0], b[1]}, minus);
  out[0] = result.significand, out[1] = result.exponent;
}

void quotient(u64 n, const u64* divisor, u64* out) {
  const Real<u64> result = Quotient(n, lrops::Divisor<u64>{divisor[0], divisor[1], divisor[2]});
  out[0] = result.significand, out[1] = result.exponent;
}

void inverse_square_root(u64 n, u64* out) {
  const Real<u64> result = lrops::InverseSquareRoot(n);
  out[0] = result.significand, out[1] = result.exponent;
}

void square_root(u64 n, u64 d, u64* out) {
  const Real<u64> result = SquareRoot(n, lrops::InverseSquareRoot(n), d, lrops::InverseSquareRoot(d));
  out[0] = result.significand, out[1] = result.exponent;
}

void half_reciprocal(u64 d, u64* out) {
  const Real<u64> result = lrops::HalfReciprocal(d);
  out[0] = result.significand, out[1] = result.exponent;
}

void sine_squared(const u64* x, u64* out) {
  const Real<u64> result = SineSquared(Real<u64>{x[0], x[1]});
  out[0] = result.significand, out[1] = result.exponent;
}
}
