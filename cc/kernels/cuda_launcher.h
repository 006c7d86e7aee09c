// Launches the CUDA kernels through NVIDIA's driver, which the first launch opens.
// No CUDA header is needed: a stream is a CUstream, as void*, and the pointers belong to the stream's device.
#ifndef LROPS_KERNELS_CUDA_LAUNCHER_H_
#define LROPS_KERNELS_CUDA_LAUNCHER_H_

#include <cstdint>
#include <string>

#include "formula/schedule.h"

namespace lrops {

inline const char* KernelOf(const DecayCurve&) { return "lrops_warmup_decay"; }
inline const char* KernelOf(const InverseSqrtCurve&) { return "lrops_warmup_inverse_sqrt"; }
inline const char* KernelOf(const RestartsCurve&) { return "lrops_warmup_cosine_restarts"; }

// Launches the kernel on its type of `curve`. The rest is as in LaunchLearningRates.
std::string Launch(const char* kernel, const void* curve, const Format& format, int bytes, const std::int64_t* step,
                   std::int64_t count, void* out, void* stream);

// Schedule::LearningRates on a GPU: puts one launch on `stream` (none if count is 0) and returns without waiting for
// it. Returns an empty string, or what failed, in CUDA's words, and what to do about it. Any thread may call it,
// whatever its current context: the stream determines the context. A null stream is an error.
template <class H>
std::string LaunchLearningRates(const Schedule<H>& schedule, const std::int64_t* step, std::int64_t count, void* out,
                                void* stream) {
  return Launch(KernelOf(schedule.curve), &schedule.curve, schedule.format, schedule.dtype->bytes, step, count, out,
                stream);
}

}  // namespace lrops

#endif  // LROPS_KERNELS_CUDA_LAUNCHER_H_
