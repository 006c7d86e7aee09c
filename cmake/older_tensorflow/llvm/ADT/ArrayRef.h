// Two names of LLVM, whose headers TensorFlow 2.19 includes and does not ship. No layout depends on them.
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
