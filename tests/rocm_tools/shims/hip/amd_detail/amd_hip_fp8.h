// Names of HIP's fp8 types for TileLang's templates, without any conversion. For compile checks alone: a kernel
// that converts fp8 does not compile here, as wrong numbers would be worse.
#pragma once
#include <stdint.h>
typedef uint8_t __hip_fp8_storage_t;
typedef uint16_t __hip_fp8x2_storage_t;
typedef uint32_t __hip_fp8x4_storage_t;
// A call that is left in a kernel is an error of the compiler.
#define LOSTWAX_NEVER __attribute__((error("fp8 is not converted in compile checks without ROCm")))
extern "C" __host__ __device__ uint8_t lostwax_to_fp8(float) LOSTWAX_NEVER;
extern "C" __host__ __device__ float lostwax_of_fp8(uint8_t) LOSTWAX_NEVER;
#define LOSTWAX_FP8(NAME)                                                            \
  struct NAME {                                                                      \
    uint8_t __x;                                                                     \
    NAME() = default;                                                                \
    template <class T>                                                               \
    __host__ __device__ NAME(T x) : __x(lostwax_to_fp8((float)x)) {}                 \
    __host__ __device__ operator float() const { return lostwax_of_fp8(__x); }       \
  };
LOSTWAX_FP8(__hip_fp8_e4m3)
LOSTWAX_FP8(__hip_fp8_e5m2)
LOSTWAX_FP8(__hip_fp8_e4m3_fnuz)
LOSTWAX_FP8(__hip_fp8_e5m2_fnuz)
#define LOSTWAX_FP8_VECTOR(NAME, WORD) \
  struct NAME {                        \
    WORD __x;                          \
  };
LOSTWAX_FP8_VECTOR(__hip_fp8x2_e4m3, uint16_t)
LOSTWAX_FP8_VECTOR(__hip_fp8x4_e4m3, uint32_t)
LOSTWAX_FP8_VECTOR(__hip_fp8x2_e4m3_fnuz, uint16_t)
LOSTWAX_FP8_VECTOR(__hip_fp8x4_e4m3_fnuz, uint32_t)
LOSTWAX_FP8_VECTOR(__hip_fp8x2_e5m2, uint16_t)
LOSTWAX_FP8_VECTOR(__hip_fp8x4_e5m2, uint32_t)
LOSTWAX_FP8_VECTOR(__hip_fp8x2_e5m2_fnuz, uint16_t)
LOSTWAX_FP8_VECTOR(__hip_fp8x4_e5m2_fnuz, uint32_t)
enum __hip_fp8_interpretation_t { __HIP_E4M3, __HIP_E5M2, __HIP_E4M3_FNUZ, __HIP_E5M2_FNUZ };
enum __hip_saturation_t { __HIP_NOSAT, __HIP_SATFINITE };
static inline __device__ __hip_fp8_storage_t __hip_cvt_float_to_fp8(float x, __hip_saturation_t,
                                                                    __hip_fp8_interpretation_t) {
  return lostwax_to_fp8(x);
}
