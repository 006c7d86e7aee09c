// See ArrayRef.h.
#pragma once
#include "llvm/ADT/ArrayRef.h"
