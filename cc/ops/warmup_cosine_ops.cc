// The interface of each op: its input, its attributes, its output, its documentation. The kernels register against it.
//
// An op's name, attributes and defaults are a promise: saved models hold them, except a value that is the default. An
// op may gain attributes with defaults.
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"

REGISTER_OP("Lrops>WarmupCosineDecay")
    .Input("step: int64")
    .Output("learning_rate: dtype")
    .Attr("initial_learning_rate: string")
    .Attr("warmup_steps: int")
    .Attr("total_steps: int")
    .Attr("alpha: string = '0.001'")
    .Attr("hold_steps: int = 0")
    .Attr("warmup_start: string = '0'")
    .Attr("start_step: int = 0")
    .Attr("dtype: {half, bfloat16, float, double} = DT_FLOAT")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape)
    .Doc(R"doc(
The learning rate at `step`: linear warmup, a hold at the peak, cosine decay to a floor.

With p = initial_learning_rate, W = warmup_steps, H = hold_steps, T = total_steps and s = step - start_step, clamped to
[0, T], the result is p * g(s), computed in 64-bit integers and rounded once to `dtype`:

    g(s) = warmup_start + (1 - warmup_start) * s / W                       where s < W
         = 1                                                               where W <= s <= W + H
         = alpha + (1 - alpha) * sin(pi/2 * (T - s) / (T - W - H))^2       where s > W + H

TensorFlow has no attribute of type double, so the three real numbers are decimal strings that read back exactly.

step: Optimizer steps, of any shape.
learning_rate: The learning rate at each step, of the same shape.
initial_learning_rate: The peak, a finite number above 0.
warmup_steps: W, at least 0.
total_steps: T, at most 2^62. It counts warmup and hold, and is greater than both together.
alpha: The floor as a ratio of the peak, in [0, 1].
hold_steps: H, at least 0.
warmup_start: The first value as a ratio of the peak, in [0, 1].
start_step: The step at which the curve begins, in [-2^62, 2^62].
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

As Lrops>WarmupCosineDecay up to the peak. With W = warmup_steps and s = step - start_step, clamped to at least 0, cycle
i = 0, 1, ... has L = first_decay_steps * t_mul^i steps, rounded to the nearest integer, ties to even. With d steps of
it done, the result is p * g, computed in 64-bit integers and rounded once to `dtype`:

    g = warmup_start + (1 - warmup_start) * s / W                          where s < W
      = alpha + (1 - alpha) * m_mul^i * cos(pi/2 * d / L)^2                in cycle i
      = alpha                                                              after the last cycle

TensorFlow has no attribute of type double, so the real numbers are decimal strings that read back exactly.

step: Optimizer steps, of any shape.
learning_rate: The learning rate at each step, of the same shape.
initial_learning_rate: The peak p of the first cycle, a finite number above 0.
warmup_steps: W, at least 0.
first_decay_steps: The length of the first cycle, at least 1.
t_mul: The ratio of a cycle's length to the one before, a finite number, at least 1.
m_mul: The ratio of a cycle's height above the floor to the one before, in (0, 1].
alpha: The floor as a ratio of the peak, in [0, 1].
cycles: Their number, at most 64 unless t_mul and m_mul are 1; 0 for as many as end within 2^62 steps.
warmup_start: The first value as a ratio of the peak, in [0, 1].
start_step: The step at which the curve begins, in [-2^62, 2^62].
)doc");
