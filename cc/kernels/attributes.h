// The list of the ops, the registration of their kernels, and the reading of a node's attributes.
#ifndef LROPS_KERNELS_ATTRIBUTES_H_
#define LROPS_KERNELS_ATTRIBUTES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "formula/schedule.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/denormal.h"

namespace lrops {

// Calls `visit` with the name of each op and its hyper-parameters.
template <class Visitor>
bool ForEachOp(Visitor&& visit) {
  visit("Lrops>WarmupDecay", DecayParameters());
  visit("Lrops>WarmupInverseSqrt", InverseSqrtParameters());
  visit("Lrops>WarmupCosineRestarts", RestartsParameters());
  return true;  // so that a static variable can make the call
}

template <class Kernel>
tensorflow::OpKernel* MakeKernel(tensorflow::OpKernelConstruction* context) {
  return new Kernel(context);
}

template <class Kernel>
void RegisterKernel(const char* op, const char* device) {
  const auto* definition = tensorflow::register_kernel::Name(op).Device(device).Build();
  tensorflow::kernel_factory::OpKernelRegistrar(definition, op, MakeKernel<Kernel>);
}

namespace internal {

inline absl::Status ReadAttribute(tensorflow::OpKernelConstruction* context, const char* name, double* value) {
  std::string text;
  TF_RETURN_IF_ERROR(context->GetAttr(name, &text));
  if (absl::SimpleAtod(text, value)) return absl::OkStatus();
  // Escaped, because for a message that is not UTF-8 Python would show a UnicodeDecodeError instead of this one.
  return absl::InvalidArgumentError(
      absl::StrCat(name, " must be a decimal number. Received: ", name, "='", absl::CHexEscape(text), "'"));
}

template <class T>
absl::Status ReadAttribute(tensorflow::OpKernelConstruction* context, const char* name, T* value) {
  return context->GetAttr(name, value);
}

inline absl::Status ReadAttribute(tensorflow::OpKernelConstruction* context, const char* name,
                                  std::optional<std::int64_t>* value) {
  std::int64_t number;
  TF_RETURN_IF_ERROR(context->GetAttr(name, &number));
  if (number != 0) *value = number;
  return absl::OkStatus();
}

template <class H>
absl::Status Read(tensorflow::OpKernelConstruction* context, Schedule<H>* schedule) {
  H h;
  tensorflow::DataType type;
  absl::Status read;
  h.Visit([&](const char* name, auto& value) { read.Update(ReadAttribute(context, name, &value)); });
  TF_RETURN_IF_ERROR(read);
  TF_RETURN_IF_ERROR(context->GetAttr("dtype", &type));
  const std::string name = type == tensorflow::DT_HALF     ? "float16"
                           : type == tensorflow::DT_FLOAT  ? "float32"
                           : type == tensorflow::DT_DOUBLE ? "float64"
                                                           : tensorflow::DataTypeString(type);
  const Dtype* dtype = FindDtype(name);
  if (dtype == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype must be float16, bfloat16, float32 or float64. Received: dtype=", name));
  }
  const std::string error = RuleError(h, *dtype);
  if (!error.empty()) return absl::InvalidArgumentError(error);
  *schedule = MakeSchedule(h, *dtype);
  return absl::OkStatus();
}

}  // namespace internal

// Fails with InvalidArgument and the reason if an attribute breaks a rule.
template <class H>
absl::Status ReadAttributes(tensorflow::OpKernelConstruction* context, Schedule<H>* schedule) {
  // TensorFlow's threads flush subnormal numbers to 0; an alpha of 1e-310 must mean the same here as in Python.
  const tensorflow::port::ScopedDontFlushDenormal exact;
  const absl::Status status = internal::Read(context, schedule);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context->def().op(), ": ", status.message()));
}

}  // namespace lrops

#endif  // LROPS_KERNELS_ATTRIBUTES_H_
