// Lets the Python module of a wheel load on an older glibc, without two symbols that came with 2.32 and 2.34. It is
// linked with --wrap=pthread_once.
#include <pthread.h>

#include "kernels/oldest_glibc.h"

// libstdc++ reads it to save atomic operations; "no" is always correct.
extern "C" char __libc_single_threaded;
char __libc_single_threaded = 0;

// The same function, under its oldest version.
__asm__(".symver older_pthread_once,pthread_once@" LROPS_OLDEST_GLIBC);
extern "C" int older_pthread_once(pthread_once_t* control, void (*routine)());
extern "C" int __wrap_pthread_once(pthread_once_t* control, void (*routine)()) {
  return older_pthread_once(control, routine);
}
