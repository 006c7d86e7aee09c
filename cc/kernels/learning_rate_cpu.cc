// The ops on a CPU: the formula over every element of `step`.
#include <cstdint>

#include "kernels/attributes.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/work_sharder.h"

namespace lrops {
namespace {

constexpr std::int64_t kCycles = 100;         // processor cycles for one element
constexpr std::int64_t kWorthAThread = 1000;  // elements; fewer take less time than waking a thread

template <class H>
class LearningRateCpu : public tensorflow::OpKernel {
 public:
  explicit LearningRateCpu(tensorflow::OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, ReadAttributes(context, &schedule_));
  }

  void Compute(tensorflow::OpKernelContext* context) override {
    const tensorflow::Tensor& step = context->input(0);
    tensorflow::Tensor* learning_rate = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, step.shape(), &learning_rate));
    const std::int64_t* steps = step.flat<std::int64_t>().data();
    char* rates = static_cast<char*>(learning_rate->data());
    const std::int64_t bytes = schedule_.dtype->bytes;
    const auto evaluate = [&](std::int64_t begin, std::int64_t end) {
      schedule_.LearningRates(steps + begin, end - begin, rates + begin * bytes);
    };
    if (step.NumElements() < kWorthAThread) return evaluate(0, step.NumElements());
    const auto& threads = *context->device()->tensorflow_cpu_worker_threads();
    tensorflow::Shard(threads.num_threads, threads.workers, step.NumElements(), kCycles, evaluate);
  }

  // Handing the op to another thread would take longer than evaluating a scalar.
  bool IsExpensive() override { return false; }

 private:
  Schedule<H> schedule_;
};

const bool registered = ForEachOp([](const char* op, auto hyperparameters) {
  RegisterKernel<LearningRateCpu<decltype(hyperparameters)>>(op, tensorflow::DEVICE_CPU);
});

}  // namespace
}  // namespace lrops
