// The launcher as a C function, so that Python can call it through ctypes.
//
// Built by test_cuda_launcher.py together with cc/kernels/cuda_driver.cc, called by fake_cuda.py. It must not know that
// the driver is a fake.
#include <cstdint>
#include <cstdio>
#include <string>

#include "formula/curve.h"
#include "kernels/cuda_driver.h"

extern "C" void launch(double initial_learning_rate, std::int64_t warmup_steps, std::int64_t total_steps, double alpha,
                       std::int64_t hold_steps, double warmup_start, std::int64_t start_step, const char* dtype,
                       const std::int64_t* step, std::int64_t count, void* out, void* stream, char* error, int size) {
  const lrops::Schedule schedule = lrops::MakeSchedule(
      {initial_learning_rate, warmup_steps, total_steps, alpha, hold_steps, warmup_start, start_step},
      *lrops::FindDtype(dtype));
  std::snprintf(error, size, "%s", lrops::LaunchLearningRates(schedule, step, count, out, stream).c_str());
}
