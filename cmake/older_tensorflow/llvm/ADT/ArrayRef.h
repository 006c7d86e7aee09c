// Two names of LLVM, whose headers TensorFlow 2.19 includes and does not ship. No layout depends on them.
//
// Included by xla/stream_executor/gpu/tma_metadata.h through SmallVector.h beside it. It must not be used by lrops.
#pragma once
namespace llvm {
template <class T>
struct ArrayRef {
  template <class U>
  ArrayRef(const U&) {}
};
template <class T>
struct SmallVector {};
}  // namespace llvm
