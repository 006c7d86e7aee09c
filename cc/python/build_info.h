// What lrops.build_info says. Defined apart from native.cc, which takes seconds to compile: each commit changes it.
#ifndef LROPS_PYTHON_BUILD_INFO_H_
#define LROPS_PYTHON_BUILD_INFO_H_

namespace lrops {

struct BuildFact {
  const char* name;
  const char* value;
};
extern const BuildFact kBuildInfo[5];

}  // namespace lrops

#endif  // LROPS_PYTHON_BUILD_INFO_H_
