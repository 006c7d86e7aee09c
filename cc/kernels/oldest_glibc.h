// The version that glibc's first functions have on this architecture. A function that moved to another library of glibc
// got a newer version too; with this one, a library that was linked on a new system loads on an old one.
#ifndef LROPS_KERNELS_OLDEST_GLIBC_H_
#define LROPS_KERNELS_OLDEST_GLIBC_H_

#if defined(__x86_64__)
#define LROPS_OLDEST_GLIBC "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define LROPS_OLDEST_GLIBC "GLIBC_2.17"
#endif

#endif  // LROPS_KERNELS_OLDEST_GLIBC_H_
