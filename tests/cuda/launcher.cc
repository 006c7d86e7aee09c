// The launcher as two C functions, one for each curve, so that Python can call it through ctypes.
//
// Built by test_cuda_launcher.py together with cc/kernels/cuda_driver.cc, called by fake_cuda.py. It must not know that
// the driver is a fake.
#include <cstdint>
#include <cstdio>
#include <string>

#include "formula/curve.h"
#include "formula/restarts.h"
#include "kernels/cuda_driver.h"

namespace {

template <class H>
void Launch(const H& hyperparameters, const char* dtype, const std::int64_t* step, std::int64_t count, void* out,
            void* stream, char* error, int size) {
  const auto schedule = lrops::MakeSchedule(hyperparameters, *lrops::FindDtype(dtype));
  std::snprintf(error, size, "%s", lrops::LaunchLearningRates(schedule, step, count, out, stream).c_str());
}

}  // namespace

extern "C" {

void launch_decay(double initial_learning_rate, std::int64_t warmup_steps, std::int64_t total_steps, double alpha,
                  std::int64_t hold_steps, double warmup_start, std::int64_t start_step, const char* dtype,
                  const std::int64_t* step, std::int64_t count, void* out, void* stream, char* error, int size) {
  const lrops::Decay decay{
      {initial_learning_rate, warmup_steps, alpha, warmup_start, start_step}, total_steps, hold_steps};
  Launch(decay, dtype, step, count, out, stream, error, size);
}

void launch_restarts(double initial_learning_rate, std::int64_t warmup_steps, std::int64_t first_decay_steps,
                     double t_mul, double m_mul, double alpha, std::int64_t cycles, double warmup_start,
                     std::int64_t start_step, const char* dtype, const std::int64_t* step, std::int64_t count,
                     void* out, void* stream, char* error, int size) {
  lrops::Restarts restarts{
      {initial_learning_rate, warmup_steps, alpha, warmup_start, start_step}, first_decay_steps, t_mul, m_mul, {}};
  if (cycles != 0) restarts.cycles = cycles;
  Launch(restarts, dtype, step, count, out, stream, error, size);
}

}  // extern "C"
