// The ops on an NVIDIA GPU: an evaluation of any shape is one launch on TensorFlow's stream, without a copy or a wait.
// No CUDA header is included, so it builds against every TensorFlow and loads on machines without CUDA.
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/attributes.h"
#include "kernels/cuda_launcher.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/port.h"
#include "xla/stream_executor/stream.h"

namespace lrops {
namespace {

template <class H>
class LearningRateGpu : public tensorflow::OpKernel {
 public:
  explicit LearningRateGpu(tensorflow::OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, ReadAttributes(context, &schedule_));
  }

  void Compute(tensorflow::OpKernelContext* context) override {
    const tensorflow::Tensor& step = context->input(0);  // in device memory, and never read here
    tensorflow::Tensor* learning_rate = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, step.shape(), &learning_rate));
    const std::string error =
        LaunchLearningRates(schedule_, step.flat<std::int64_t>().data(), step.NumElements(), learning_rate->data(),
                            context->op_device_context()->stream()->platform_specific_handle().stream);
    OP_REQUIRES(context, error.empty(), absl::InternalError(absl::StrCat(type_string(), ": ", error)));
  }

 private:
  Schedule<H> schedule_;
};

// TensorFlow for ROCm calls an AMD GPU "GPU" too. No kernel is registered there, so the op runs on the CPU.
const bool registered = !tensorflow::IsBuiltWithROCm() && ForEachOp([](const char* op, auto hyperparameters) {
  RegisterKernel<LearningRateGpu<decltype(hyperparameters)>>(op, tensorflow::DEVICE_GPU);
});

}  // namespace
}  // namespace lrops
