// Stands in for a variable that glibc has from 2.32 on, so that the Python module loads where glibc is older.
//
// Compiled into lrops._native for wheels (LROPS_PORTABLE). libstdc++ reads it to save atomic operations: "no" is always
// a right answer.
extern "C" char __libc_single_threaded;
char __libc_single_threaded = 0;
