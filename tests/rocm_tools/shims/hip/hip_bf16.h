// HIP 7's name of a header that Debian's HIP 5 calls otherwise.
#pragma once
#include <hip/hip_bfloat16.h>
