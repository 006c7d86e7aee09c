// The build facts, as CMake gives them.
#include "python/build_info.h"

namespace lrops {

const BuildFact kBuildInfo[6] = {
    {"version", LROPS_VERSION}, {"commit", LROPS_COMMIT},     {"tensorflow", LROPS_TENSORFLOW_VERSION},
    {"keras", LROPS_KERAS},     {"compiler", LROPS_COMPILER}, {"cuda", LROPS_CUDA}};

}  // namespace lrops
