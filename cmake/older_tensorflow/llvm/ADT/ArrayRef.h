// Two classes of LLVM: TensorFlow 2.19 includes their headers but does not ship them. No memory layout depends on them.
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
