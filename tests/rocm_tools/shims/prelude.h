// What clang includes by itself for HIP, unless -nogpuinc says not to.
#include <__clang_hip_runtime_wrapper.h>
