// The instructions of PTX that integer kernels are made of, as functions for a host: PTX ISA, chapter 9.7.
// An instruction that is not here is an error of the compiler, which names it.
#ifndef LROPS_TESTS_CUDA_PTX_ON_HOST_H_
#define LROPS_TESTS_CUDA_PTX_ON_HOST_H_

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ptx {

using pred = bool;
using b16 = std::uint16_t;
using b32 = std::uint32_t;
using b64 = std::uint64_t;
using u16 = b16;
using u32 = b32;
using u64 = b64;
using s32 = std::int32_t;
using s64 = std::int64_t;

// Of the thread that runs: %ctaid and %tid, %nctaid and %ntid.
struct Place {
  u32 ctaid_x, tid_x, nctaid_x, ntid_x;
};

// What an `.entry` becomes: a function of the addresses of its parameters, as cuLaunchKernel takes them, for one
// thread.
using Kernel = void (*)(void* const* parameters, const Place& at);

// Runs every thread of a grid, one after another: what they would meet by, as a barrier or a shuffle, is not known.
inline void Run(Kernel kernel, void* const* parameters, u32 blocks, u32 threads) {
  for (u32 block = 0; block < blocks; ++block) {
    for (u32 thread = 0; thread < threads; ++thread) kernel(parameters, {block, thread, blocks, threads});
  }
}

template <class T>
constexpr u32 kBits = 8 * sizeof(T);

// What to add to an address of the device's memory to get one that the host may use. 0: they are the same.
inline u64 device_to_host = 0;

// Every operand comes as 64 bits; the type of the instruction says which of them count and what they mean.
// clang-format off
template <class T> T mov(u64 a) { return static_cast<T>(a); }
template <class To, class From> To cvt(u64 a) { return static_cast<To>(static_cast<From>(a)); }
template <class T> T cvta_to_global(u64 a) { return static_cast<T>(a); }
template <class T> T add(u64 a, u64 b) { return static_cast<T>(a + b); }
template <class T> T sub(u64 a, u64 b) { return static_cast<T>(a - b); }
template <class T> T neg(u64 a) { return static_cast<T>(0 - a); }
template <class T> T mul_lo(u64 a, u64 b) { return static_cast<T>(a * b); }
template <class T> T mad_lo(u64 a, u64 b, u64 c) { return static_cast<T>(a * b + c); }
template <class T> u64 mul_wide(u64 a, u64 b) {
  static_assert(std::is_same_v<T, u32>, "of 32 bits, without sign");
  return u64{static_cast<u32>(a)} * static_cast<u32>(b);
}
template <class T> T mul_hi(u64 a, u64 b) {
  static_assert(std::is_same_v<T, u64>, "of 64 bits, without sign");
  __extension__ using u128 = unsigned __int128;
  return static_cast<u64>(u128{a} * b >> 64);
}
template <class T> T div(u64 a, u64 b) { return static_cast<T>(static_cast<T>(a) / static_cast<T>(b)); }
template <class T> T min(u64 a, u64 b) { return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); }
template <class T> T max(u64 a, u64 b) { return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a); }
template <class T> T and_(u64 a, u64 b) { return static_cast<T>(a & b); }
template <class T> T or_(u64 a, u64 b) { return static_cast<T>(a | b); }
template <class T> T xor_(u64 a, u64 b) { return static_cast<T>(a ^ b); }
template <class T> T not_(u64 a) { return std::is_same_v<T, pred> ? static_cast<T>(a == 0) : static_cast<T>(~a); }
// A shift by more than the width is one by the width.
template <class T> T shl(u64 a, u64 by) { return static_cast<u32>(by) >= kBits<T> ? T{0} : static_cast<T>(a << static_cast<u32>(by)); }
template <class T> T shr(u64 a, u64 by) {
  const T sign = static_cast<T>(static_cast<T>(a) < 0 ? -1 : 0);
  return static_cast<u32>(by) >= kBits<T> ? sign : static_cast<T>(static_cast<T>(a) >> static_cast<u32>(by));
}
template <class T> T bfe(u64 a, u64 position, u64 length) {
  static_assert(std::is_unsigned_v<T>, "no sign to extend");
  const T shifted = shr<T>(a, position);
  return length < kBits<T> ? static_cast<T>(shifted & ((T{1} << length) - 1)) : shifted;
}
template <class T> u32 clz(u64 a) {
  u32 zeros = 0;
  while (zeros < kBits<T> && !(a >> (kBits<T> - 1 - zeros) & 1)) ++zeros;
  return zeros;
}
template <class T> T selp(u64 a, u64 b, pred p) { return static_cast<T>(p ? a : b); }
template <class T> pred setp_eq(u64 a, u64 b) { return static_cast<T>(a) == static_cast<T>(b); }
template <class T> pred setp_ne(u64 a, u64 b) { return static_cast<T>(a) != static_cast<T>(b); }
template <class T> pred setp_lt(u64 a, u64 b) { return static_cast<T>(a) < static_cast<T>(b); }
template <class T> pred setp_le(u64 a, u64 b) { return static_cast<T>(a) <= static_cast<T>(b); }
template <class T> pred setp_gt(u64 a, u64 b) { return static_cast<T>(a) > static_cast<T>(b); }
template <class T> pred setp_ge(u64 a, u64 b) { return static_cast<T>(a) >= static_cast<T>(b); }
// clang-format on

template <class T>
T ld_param(u64 address) {
  T value;
  std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}
template <class T>
T ld_global(u64 address) {
  return ld_param<T>(address + device_to_host);
}
template <class T>
T ld_global_nc(u64 address) {
  return ld_global<T>(address);
}
template <class T>
void st_global(u64 address, u64 a) {
  const T value = static_cast<T>(a);
  std::memcpy(reinterpret_cast<void*>(address + device_to_host), &value, sizeof value);
}

}  // namespace ptx

#endif  // LROPS_TESTS_CUDA_PTX_ON_HOST_H_
