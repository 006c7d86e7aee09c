// The steps of the formula as C functions, for test_arithmetic.py. Each Real is two numbers, significand and exponent.
#include "formula/learning_rate.h"

using lrops::Real;
using lrops::u64;

static Real<u64> At(const u64* real) { return {real[0], real[1]}; }
static void Put(const Real<u64>& real, u64* out) { out[0] = real.significand, out[1] = real.exponent; }

extern "C" {

void product(const u64* a, const u64* b, u64* out) { Put(Product(At(a), At(b)), out); }
void sum(const u64* a, const u64* b, u64 minus, u64* out) { Put(Sum(At(a), At(b), minus), out); }
void quotient(u64 n, const u64* divisor, u64* out) {
  Put(Quotient(n, lrops::Divisor<u64>{divisor[0], divisor[1], divisor[2]}), out);
}
void inverse_square_root(u64 n, u64* out) { Put(lrops::InverseSquareRoot(n), out); }
void square_root(u64 n, u64 d, u64* out) {
  Put(SquareRoot(n, lrops::InverseSquareRoot(n), d, lrops::InverseSquareRoot(d)), out);
}
void half_reciprocal(u64 d, u64* out) { Put(lrops::HalfReciprocal(d), out); }
void sine_squared(const u64* x, u64* out) { Put(SineSquared(At(x)), out); }
}
