// Debian's header calls two builtins by names that newer clangs dropped.
#pragma once
#define __llvm_amdgcn_rcp_f16 __builtin_amdgcn_rcph
typedef _Float16 lostwax_half2 __attribute__((ext_vector_type(2)));
static inline __device__ lostwax_half2 __llvm_amdgcn_rcp_2f16(lostwax_half2 x) {
  return lostwax_half2{(_Float16)__builtin_amdgcn_rcph(x[0]), (_Float16)__builtin_amdgcn_rcph(x[1])};
}
#include_next <hip/hip_fp16.h>
