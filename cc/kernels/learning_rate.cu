// The ops on a GPU, device side: the formula over every element of `step`, which stays in device memory.
// It includes no TensorFlow, C++ library or CUDA header: NVRTC compiles it to learning_rate.ptx, which is committed
// beside it (`make ptx`).
#include "formula/learning_rate.h"

// `bytes`, the width of the output, is the same in every thread: one kernel to compile at a driver's first launch costs
// more than a choice between three stores.
template <class Curve>
__device__ inline void LearningRates(const Curve& curve, const lrops::Format& format, const int bytes,
                                     const long long* step, const long long count, void* out) {
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const lrops::u64 ordered = static_cast<lrops::u64>(step[i]) + (lrops::u64{1} << 63);
    const lrops::u64 bits = Round(format, Evaluate(curve, ordered));
    if (bytes == 2) static_cast<unsigned short*>(out)[i] = static_cast<unsigned short>(bits);
    if (bytes == 4) static_cast<unsigned int*>(out)[i] = static_cast<unsigned int>(bits);
    if (bytes == 8) static_cast<lrops::u64*>(out)[i] = bits;
  }
}

extern "C" __global__ void lrops_warmup_decay(const lrops::DecayCurve curve, const lrops::Format format,
                                              const int bytes, const long long* step, const long long count,
                                              void* out) {
  LearningRates(curve, format, bytes, step, count, out);
}

extern "C" __global__ void lrops_warmup_inverse_sqrt(const lrops::InverseSqrtCurve curve, const lrops::Format format,
                                                     const int bytes, const long long* step, const long long count,
                                                     void* out) {
  LearningRates(curve, format, bytes, step, count, out);
}

extern "C" __global__ void lrops_warmup_cosine_restarts(const lrops::RestartsCurve curve, const lrops::Format format,
                                                        const int bytes, const long long* step, const long long count,
                                                        void* out) {
  LearningRates(curve, format, bytes, step, count, out);
}
