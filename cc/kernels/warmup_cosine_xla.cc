// The op under XLA (`jit_compile=True`): the formula, traced over values of the XLA graph instead of integers.
//
// Called by TensorFlow's bridge to XLA, for every platform that XLA has. It must not know a platform: XLA's u64 is the
// whole requirement. A unit of its own, and a library of its own, because XLA's headers take half a minute to compile.
#include <cstdint>

#include "kernels/attributes.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "xla/hlo/builder/lib/constants.h"
#include "xla/hlo/builder/xla_builder.h"

namespace lrops {
namespace {

// What warmup_cosine.h asks of U, for an array of u64 in the XLA graph. XLA's shifts by 64 or more give 0 as well.
struct XlaU64 {
  xla::XlaOp op;
};

XlaU64 operator+(XlaU64 a, XlaU64 b) { return {a.op + b.op}; }
XlaU64 operator-(XlaU64 a, XlaU64 b) { return {a.op - b.op}; }
XlaU64 operator*(XlaU64 a, XlaU64 b) { return {a.op * b.op}; }
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

// XLA has no 128-bit product: four products of 32-bit halves, as on paper.
XlaU64 MultiplyHigh(XlaU64 a, XlaU64 b) {
  const XlaU64 half = Constant(a, 32);
  const XlaU64 mask = Constant(a, 0xffffffff);
  const XlaU64 a0 = a & mask, a1 = ShiftRight(a, half);
  const XlaU64 b0 = b & mask, b1 = ShiftRight(b, half);
  const XlaU64 middle = a1 * b0 + ShiftRight(a0 * b0, half);
  const XlaU64 other = a0 * b1 + (middle & mask);
  return a1 * b1 + ShiftRight(middle, half) + ShiftRight(other, half);
}

}  // namespace
}  // namespace lrops

// The formula's templates find the functions above by argument lookup, when they are instantiated below.
namespace lrops {
namespace {

class WarmupCosineDecayXla : public tensorflow::XlaOpKernel {
 public:
  explicit WarmupCosineDecayXla(tensorflow::OpKernelConstruction* context) : XlaOpKernel(context) {
    OP_REQUIRES_OK(context, ReadAttributes(context, &schedule_));
  }

  void Compile(tensorflow::XlaOpKernelContext* context) override {
    const xla::XlaOp step = xla::BitcastConvertType(context->Input(0), xla::U64);
    const XlaU64 ordered = XlaU64{step} + Constant(XlaU64{step}, u64{1} << 63);
    const xla::XlaOp bits = Round(schedule_.format, Evaluate(schedule_.curve, ordered)).op;
    const xla::PrimitiveType stored = schedule_.dtype->bytes == 2   ? xla::U16
                                      : schedule_.dtype->bytes == 4 ? xla::U32
                                                                    : xla::U64;
    context->SetOutput(0, xla::BitcastConvertType(xla::ConvertElementType(bits, stored), context->output_xla_type(0)));
  }

 private:
  Schedule schedule_;
};

REGISTER_XLA_OP(Name(kOpName), WarmupCosineDecayXla);

// TensorFlow turns XLA ops into kernels once, when its first eager context makes the devices. Where this library is
// loaded later than that, as in `x = tf.constant(1); import lrops`, the kernels have to be added by hand.
const bool registered_late = [] {
  const tensorflow::KernelList existing = tensorflow::GetRegisteredKernelsForOp("AddV2");
  for (const char* device : {tensorflow::DEVICE_CPU_XLA_JIT, tensorflow::DEVICE_GPU_XLA_JIT}) {
    for (const tensorflow::KernelDef& kernel : existing.kernel()) {
      if (kernel.device_type() != device) continue;
      tensorflow::kernel_factory::OpKernelRegistrar(
          tensorflow::register_kernel::Name(kOpName).Device(device).Build(), "WarmupCosineDecayXla",
          [](tensorflow::OpKernelConstruction* context) -> tensorflow::OpKernel* {
            return new WarmupCosineDecayXla(context);
          });
      break;
    }
  }
  return true;
}();

}  // namespace
}  // namespace lrops
