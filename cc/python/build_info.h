// The values of lrops.build_info. Each commit changes them, so they are kept out of native.cc, which compiles slowly.
#ifndef LROPS_PYTHON_BUILD_INFO_H_
#define LROPS_PYTHON_BUILD_INFO_H_

namespace lrops {

struct BuildFact {
  const char* name;
  const char* value;
};
extern const BuildFact kBuildInfo[6];

}  // namespace lrops

#endif  // LROPS_PYTHON_BUILD_INFO_H_
