// The ops under XLA (`jit_compile=True`): the formula, traced over values of the XLA graph instead of integers.
// A separate library, because XLA's headers take half a minute to compile.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/attributes.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "xla/hlo/builder/lib/arithmetic.h"
#include "xla/hlo/builder/lib/comparators.h"
#include "xla/hlo/builder/lib/constants.h"
#include "xla/hlo/builder/xla_builder.h"

namespace lrops {
namespace {

// What arithmetic.h asks of U, for an array of u64 in the XLA graph. XLA's shifts by 64 or more give 0 as well.
struct XlaU64 {
  xla::XlaOp op;
};

XlaU64 operator+(XlaU64 a, XlaU64 b) { return {a.op + b.op}; }
XlaU64 operator-(XlaU64 a, XlaU64 b) { return {a.op - b.op}; }
XlaU64 operator*(XlaU64 a, XlaU64 b) { return {a.op * b.op}; }
XlaU64 operator/(XlaU64 a, XlaU64 b) { return {a.op / b.op}; }
XlaU64 operator&(XlaU64 a, XlaU64 b) { return {a.op & b.op}; }
XlaU64 operator|(XlaU64 a, XlaU64 b) { return {a.op | b.op}; }
XlaU64 operator^(XlaU64 a, XlaU64 b) { return {a.op ^ b.op}; }
xla::XlaOp operator<(XlaU64 a, XlaU64 b) { return xla::Lt(a.op, b.op); }

XlaU64 Constant(XlaU64 like, u64 value) { return {xla::ScalarLike(like.op, static_cast<std::uint64_t>(value))}; }
XlaU64 Select(xla::XlaOp condition, XlaU64 yes, XlaU64 no) { return {xla::Select(condition, yes.op, no.op)}; }
XlaU64 Min(XlaU64 a, XlaU64 b) { return {xla::Min(a.op, b.op)}; }
XlaU64 Max(XlaU64 a, XlaU64 b) { return {xla::Max(a.op, b.op)}; }
XlaU64 ShiftLeft(XlaU64 x, XlaU64 by) { return {xla::ShiftLeft(x.op, by.op)}; }
XlaU64 ShiftRight(XlaU64 x, XlaU64 by) { return {xla::ShiftRightLogical(x.op, by.op)}; }
XlaU64 LeadingZeros(XlaU64 x) { return {xla::Clz(x.op)}; }

// XLA has no 128-bit product. This one is the sum of four products of 32-bit halves.
XlaU64 MultiplyHigh(XlaU64 a, XlaU64 b) {
  const XlaU64 half = Constant(a, 32);
  const XlaU64 mask = Constant(a, 0xffffffff);
  const XlaU64 a0 = a & mask, a1 = ShiftRight(a, half);
  const XlaU64 b0 = b & mask, b1 = ShiftRight(b, half);
  const XlaU64 middle = a1 * b0 + ShiftRight(a0 * b0, half);
  const XlaU64 other = a0 * b1 + (middle & mask);
  return a1 * b1 + ShiftRight(middle, half) + ShiftRight(other, half);
}

XlaU64 Gather(const u64* table, u64 count, XlaU64 index) {
  if (count == 1) return Constant(index, *table);
  const auto shape = index.op.builder()->GetShape(index.op);
  if (!shape.ok()) return {index.op.builder()->ReportError(shape.status())};
  xla::GatherDimensionNumbers dimensions;  // each index is a scalar and takes a scalar
  dimensions.add_collapsed_slice_dims(0);
  dimensions.add_start_index_map(0);
  dimensions.set_index_vector_dim(static_cast<std::int64_t>(shape->dimensions().size()));
  const std::vector<std::uint64_t> values(table, table + count);
  const xla::XlaOp constant = xla::ConstantR1<std::uint64_t>(index.op.builder(), values);
  return {xla::Gather(constant, index.op, dimensions, {1})};
}

// Returns its argument, as the smaller of two sorted numbers: XLA never fuses a sort into its consumers. Without it,
// XLA on a CPU copies the evaluation into every fusion that uses the rate: AdamW would execute 10 times the
// instructions and take 1.5 times as long to compile. An OptimizationBarrier does not help: XLA removes it before it
// fuses. On a GPU, XLA weighs what a copy costs, and the sort would add one or two launches.
xla::XlaOp EvaluatedOnce(xla::XlaOp bits) {
  const auto vector = [](xla::XlaOp scalar) { return xla::Reshape(scalar, {1}); };
  const xla::XlaOp most = xla::ScalarLike(bits, ~std::uint64_t{0});
  const xla::XlaOp pair = xla::ConcatInDim(bits.builder(), {vector(bits), vector(most)}, 0);
  const xla::XlaOp sorted = xla::Sort({pair}, xla::CreateScalarLtComputation({xla::U64}, bits.builder()));
  return xla::Reshape(xla::Slice(sorted, {0}, {1}, {1}), {});
}

template <class H>
class LearningRateXla : public tensorflow::XlaOpKernel {
 public:
  explicit LearningRateXla(tensorflow::OpKernelConstruction* context) : XlaOpKernel(context) {
    OP_REQUIRES_OK(context, ReadAttributes(context, &schedule_));
  }

  void Compile(tensorflow::XlaOpKernelContext* context) override {
    const xla::XlaOp step = xla::BitcastConvertType(context->Input(0), xla::U64);
    const XlaU64 ordered = XlaU64{step} + Constant(XlaU64{step}, u64{1} << 63);
    xla::XlaOp bits = Round(schedule_.format, Evaluate(schedule_.curve, ordered)).op;
    const auto shape = context->InputXlaShape(0);
    OP_REQUIRES_OK(context, shape.status());
    const bool on_cpu =
        context->compiler()->options().device_type == tensorflow::DeviceType(tensorflow::DEVICE_CPU_XLA_JIT);
    if (on_cpu && shape->dimensions().empty()) bits = EvaluatedOnce(bits);
    const xla::PrimitiveType stored = schedule_.dtype->bytes == 2   ? xla::U16
                                      : schedule_.dtype->bytes == 4 ? xla::U32
                                                                    : xla::U64;
    context->SetOutput(0, xla::BitcastConvertType(xla::ConvertElementType(bits, stored), context->output_xla_type(0)));
  }

 private:
  Schedule<H> schedule_;
};

// TensorFlow turns XLA ops into kernels once, when its first eager context makes the devices. If this library is loaded
// later, such as in `x = tf.constant(1); import lrops`, we have to add the kernels ourselves: where AddV2 has one.
const bool registered = ForEachOp([](const char* op, auto hyperparameters) {
  using Kernel = LearningRateXla<decltype(hyperparameters)>;
  tensorflow::XlaOpRegistrar(tensorflow::XlaOpRegistrationBuilder::Name(op).Build(MakeKernel<Kernel>));
  const tensorflow::KernelList existing = tensorflow::GetRegisteredKernelsForOp("AddV2");
  for (const char* device : {tensorflow::DEVICE_CPU_XLA_JIT, tensorflow::DEVICE_GPU_XLA_JIT}) {
    const auto is_of_device = [&](const tensorflow::KernelDef& kernel) { return kernel.device_type() == device; };
    if (std::any_of(existing.kernel().begin(), existing.kernel().end(), is_of_device))
      RegisterKernel<Kernel>(op, device);
  }
});

}  // namespace
}  // namespace lrops
