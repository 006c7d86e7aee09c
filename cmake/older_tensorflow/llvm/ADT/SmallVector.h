// See ArrayRef.h.
//
// Included by TensorFlow 2.19's headers, as ArrayRef.h is.
#pragma once
#include "llvm/ADT/ArrayRef.h"
