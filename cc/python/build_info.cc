// The values of lrops.build_info, as CMake gives them. Each commit changes them, so they are kept out of native.cc,
// which compiles slowly.
namespace lrops {

extern const char* const kBuildInfo[6][2] = {
    {"version", LROPS_VERSION}, {"commit", LROPS_COMMIT},     {"tensorflow", LROPS_TENSORFLOW_VERSION},
    {"keras", LROPS_KERAS},     {"compiler", LROPS_COMPILER}, {"cuda", LROPS_CUDA}};

}  // namespace lrops
