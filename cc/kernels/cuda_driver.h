// Launches the CUDA kernels through NVIDIA's driver, which is opened at the first launch and not before.
//
// Called by warmup_cosine_gpu.cc. It must not know TensorFlow or a CUDA header: a stream is a CUstream, as void*, and
// the pointers are those of the stream's device.
#ifndef LROPS_KERNELS_CUDA_DRIVER_H_
#define LROPS_KERNELS_CUDA_DRIVER_H_

#include <cstdint>
#include <string>

#include "formula/curve.h"
#include "formula/restarts.h"

namespace lrops {

// Schedule::LearningRates on a GPU: puts one launch on `stream` and returns without waiting for it; none where count is
// 0. Returns an empty string, or the sentence that says what failed, in CUDA's words, and which driver is needed. May
// be called from any thread, with any context current or none.
std::string LaunchLearningRates(const Schedule<Decay>& schedule, const std::int64_t* step, std::int64_t count,
                                void* out, void* stream);
std::string LaunchLearningRates(const Schedule<Restarts>& schedule, const std::int64_t* step, std::int64_t count,
                                void* out, void* stream);

}  // namespace lrops

#endif  // LROPS_KERNELS_CUDA_DRIVER_H_
