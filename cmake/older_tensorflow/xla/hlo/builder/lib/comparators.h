// XLA's comparators under their present name: up to TensorFlow 2.18 they stood in xla/client/lib.
//
// Included by cc/kernels/warmup_cosine_xla.cc where TensorFlow has no header of this name.
#pragma once
#include "xla/client/lib/comparators.h"
