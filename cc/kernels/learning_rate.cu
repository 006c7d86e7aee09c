// The CUDA kernels: the formula over every element of `step`, which stays in device memory. `make ptx` compiles them
// with NVRTC, without any header of TensorFlow, C++ or CUDA, to learning_rate.ptx, which is committed.
#include "formula/learning_rate.h"

// `bytes` is the width of the output. Compiling a kernel for each width at the first launch would cost more than this
// choice, which is the same in every thread.
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
