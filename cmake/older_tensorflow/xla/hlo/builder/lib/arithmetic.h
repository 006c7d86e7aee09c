// XLA's arithmetic under their present name: up to TensorFlow 2.18 they were in xla/client/lib.
#pragma once
#include "xla/client/lib/arithmetic.h"
