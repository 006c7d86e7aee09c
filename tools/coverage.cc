// Passes on to libFuzzer what g++'s -fsanitize-coverage=trace-pc reports at each branch. clang would do so itself, but
// atheris brings libFuzzer without clang.
#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" {
void __sanitizer_cov_8bit_counters_init(std::uint8_t* begin, std::uint8_t* end);
void __sanitizer_cov_pcs_init(const std::uintptr_t* begin, const std::uintptr_t* end);
void __sanitizer_cov_trace_cmp8(std::uint64_t a, std::uint64_t b);
}

namespace {

constexpr std::size_t kEdges = 1 << 14;  // more than there are, so that few share a counter
std::uint8_t counters[kEdges];
std::uintptr_t pcs[2 * kEdges];  // libFuzzer wants an address and flags for each, to name them; they stay 0

[[maybe_unused]] const bool registered = [] {
  __sanitizer_cov_8bit_counters_init(counters, counters + kEdges);
  __sanitizer_cov_pcs_init(pcs, pcs + 2 * kEdges);
  return true;
}();

}  // namespace

// Hidden, because otherwise libFuzzer's own function, which does nothing, would be called.
#pragma GCC visibility push(hidden)
extern "C" {
void __sanitizer_cov_trace_pc() {
  ++counters[reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)) / 2 % kEdges];
}

// libFuzzer has no function for comparisons of floating-point numbers. Their bits serve as well.
void __sanitizer_cov_trace_cmpd(double a, double b) {
  std::uint64_t bits[2];
  std::memcpy(&bits[0], &a, sizeof a);
  std::memcpy(&bits[1], &b, sizeof b);
  __sanitizer_cov_trace_cmp8(bits[0], bits[1]);
}
void __sanitizer_cov_trace_cmpf(float a, float b) { __sanitizer_cov_trace_cmpd(a, b); }
}
#pragma GCC visibility pop
