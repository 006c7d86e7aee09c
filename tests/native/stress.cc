// Runs the rules and the formula on random hyper-parameters, steps and dtypes, in several threads at once.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "formula/schedule.h"

namespace {

class Random {
 public:
  explicit Random(unsigned seed) : generator_(seed) {}

  std::uint64_t Bits() { return generator_(); }

  // Every magnitude is equally likely; both signs, and the ends of the range.
  std::int64_t Integer() {
    const std::int64_t ends[] = {0, 1, -1, INT64_MAX, INT64_MIN, lrops::kMaxSteps, -lrops::kMaxSteps};
    if (Bits() % 8 == 0) return ends[Bits() % 7];
    const std::int64_t value = static_cast<std::int64_t>(Bits() >> (Bits() % 64));
    return Bits() % 4 ? std::llabs(value % lrops::kMaxSteps) : value;
  }

  // Mostly a ratio; otherwise a small integer or any double.
  double Real() {
    if (Bits() % 4) return static_cast<double>(Bits() >> 11) / 9007199254740992.0;
    if (Bits() % 2) return static_cast<double>(Bits() % 4);
    const std::uint64_t bits = Bits();
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  void Fill(double& value) { value = Real(); }
  void Fill(std::int64_t& value) { value = Integer(); }
  void Fill(std::optional<std::int64_t>& value) {
    if (Bits() % 2) value = static_cast<std::int64_t>(Bits() % 66);
  }
  void Fill(std::string& value) {
    const char* const decays[] = {"cosine", "linear", "minus_sqrt", "no decay"};
    value = decays[Bits() % 4];
  }

  template <class Parameters>
  Parameters All() {
    Parameters parameters;
    parameters.Visit([this](const char* name, auto& value) {
      Fill(value);
      if constexpr (std::is_same_v<decltype(value), double&>) {
        if (std::strcmp(name, "t_mul") == 0) value = 1 + 4 * value;  // less is rejected
      }
    });
    return parameters;
  }

 private:
  std::mt19937_64 generator_;
};

// Evaluates a curve if the rules allow it. Returns how many rates it computed.
template <class Parameters>
std::size_t Evaluate(const Parameters& parameters, Random& random) {
  const lrops::Dtype& dtype = lrops::kDtypes[random.Bits() % 4];
  if (!RuleError(parameters, dtype).empty()) return 0;
  std::vector<std::int64_t> steps(random.Bits() % 9);
  for (std::int64_t& step : steps) step = random.Integer();
  std::vector<unsigned char> rates(steps.size() * static_cast<std::size_t>(dtype.bytes));
  lrops::MakeSchedule(parameters, dtype)
      .LearningRates(steps.data(), static_cast<std::int64_t>(steps.size()), rates.data());
  for (std::size_t i = 1; i <= steps.size(); ++i) {  // little-endian: the sign is in the last byte
    if (rates[i * static_cast<std::size_t>(dtype.bytes) - 1] & 0x80) std::abort();
  }
  return steps.size();
}

std::size_t Run(unsigned seed, int count) {
  Random random(seed);
  std::size_t evaluated = 0;
  for (int i = 0; i < count; ++i) {
    evaluated += Evaluate(random.All<lrops::DecayParameters>(), random);
    evaluated += Evaluate(random.All<lrops::InverseSqrtParameters>(), random);
    evaluated += Evaluate(random.All<lrops::RestartsParameters>(), random);
  }
  return evaluated;
}

}  // namespace

int main(int, char** arguments) {
  std::vector<std::thread> threads;
  std::size_t evaluated[4];
  threads.reserve(4);
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] { evaluated[i] = Run(i, std::stoi(arguments[1])); });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("%zu\n", evaluated[0] + evaluated[1] + evaluated[2] + evaluated[3]);
}
