// The interface of each op: its input, attributes, output and documentation.
//
// An op's name, attributes and defaults are a promise: a saved model holds them, and leaves out a value that is the
// default. An op may gain attributes with defaults.
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"

REGISTER_OP("Lrops>WarmupDecay")
    .Input("step: int64")
    .Output("learning_rate: dtype")
    .Attr("initial_learning_rate: string")
    .Attr("warmup_steps: int")
    .Attr("total_steps: int")
    .Attr("alpha: string = '0.001'")
    .Attr("decay: {'cosine', 'linear', 'minus_sqrt'} = 'cosine'")
    .Attr("hold_steps: int = 0")
    .Attr("warmup_start: string = '0'")
    .Attr("start_step: int = 0")
    .Attr("dtype: {half, bfloat16, float, double} = DT_FLOAT")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape)
    .Doc(R"doc(
The learning rate at `step`: linear warmup, a hold at the peak, a decay to a floor.

lrops.WarmupDecay documents the attributes. Real numbers are decimal strings that read back exactly, because TensorFlow
has no attribute of type double.

step: Optimizer steps, of any shape.
learning_rate: The learning rate at each step, of the same shape, rounded once to `dtype`.
)doc");

REGISTER_OP("Lrops>WarmupInverseSqrt")
    .Input("step: int64")
    .Output("learning_rate: dtype")
    .Attr("initial_learning_rate: string")
    .Attr("warmup_steps: int")
    .Attr("timescale: int = 0")
    .Attr("hold_steps: int = 0")
    .Attr("warmup_start: string = '0'")
    .Attr("start_step: int = 0")
    .Attr("dtype: {half, bfloat16, float, double} = DT_FLOAT")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape)
    .Doc(R"doc(
The learning rate at `step`: linear warmup, a hold at the peak, then one over the square root of the step.

lrops.WarmupInverseSqrt documents the attributes; a `timescale` of 0 means `warmup_steps`. The rest is as in
Lrops>WarmupDecay.
)doc");

REGISTER_OP("Lrops>WarmupCosineRestarts")
    .Input("step: int64")
    .Output("learning_rate: dtype")
    .Attr("initial_learning_rate: string")
    .Attr("warmup_steps: int")
    .Attr("first_decay_steps: int")
    .Attr("t_mul: string = '2'")
    .Attr("m_mul: string = '1'")
    .Attr("alpha: string = '0.001'")
    .Attr("cycles: int = 0")
    .Attr("warmup_start: string = '0'")
    .Attr("start_step: int = 0")
    .Attr("dtype: {half, bfloat16, float, double} = DT_FLOAT")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape)
    .Doc(R"doc(
The learning rate at `step`: linear warmup, then cycles of cosine decay, each starting again at a peak.

lrops.WarmupCosineRestarts documents the attributes; `cycles` of 0 means as many as end within 2^62 steps. The rest is
as in Lrops>WarmupDecay.
)doc");
