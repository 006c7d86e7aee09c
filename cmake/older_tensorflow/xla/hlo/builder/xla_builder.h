// XLA's builder under its present name: up to TensorFlow 2.18 it was in xla/client.
#pragma once
#include "xla/client/xla_builder.h"
