// Lets the Python module of a wheel load on an older glibc: two symbols that came with 2.32 and 2.34. x86-64 only:
// other machines have other versions to go back to. It is linked with --wrap=pthread_once.
#include <pthread.h>

// libstdc++ reads it to save atomic operations: "no" is always a right answer.
extern "C" char __libc_single_threaded;
char __libc_single_threaded = 0;

// The same function under the version that it has had since ever.
__asm__(".symver older_pthread_once,pthread_once@GLIBC_2.2.5");
extern "C" int older_pthread_once(pthread_once_t* control, void (*routine)());
extern "C" int __wrap_pthread_once(pthread_once_t* control, void (*routine)()) {
  return older_pthread_once(control, routine);
}
