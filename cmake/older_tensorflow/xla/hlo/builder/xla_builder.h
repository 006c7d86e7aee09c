// XLA's builder under its present name: up to TensorFlow 2.18 it stood in xla/client.
//
// Included by cc/kernels/warmup_cosine_xla.cc where TensorFlow has no header of this name.
#pragma once
#include "xla/client/xla_builder.h"
