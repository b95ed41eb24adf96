// Products of a warpgroup in fp8: D[64, 128] += A[64, 32] B[128, 32]^T, f32 sums. Both lie in shared
// memory by rows of 128 bytes, 128-byte swizzle. Knows no kernel.
// The tests put another file in place of this one, too (cuda_twin/tiles.h).
#ifndef HOPPER_WGMMA_FP8
#define HOPPER_WGMMA_FP8
#include "wgmma.h"

// Rows of 128 bytes from a 1024-byte border on, of which groups of 8 lie 1024 bytes apart; 32 bytes of
// each, from `address` on.
INLINE u64 rows_operand(u32 address) {
  u64 operand;
  asm("mov.b64 %0, {%1, %2};" : "=l"(operand) : "r"(address >> 4 | 1u << 16), "n"(64 | 1 << 30));
  return operand;
}

#define ACC64 ACC32, ACC4(32), ACC4(36), ACC4(40), ACC4(44), ACC4(48), ACC4(52), ACC4(56), ACC4(60)

// `keep` 0 overwrites D.
INLINE void add_e4m3_product(float (&d)[64], u64 a, u64 b, int keep) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, p, 1, 1;\n}\n"
      : ACC64
      : "l"(a), "l"(b), "r"(keep));
}
// No instruction may move across these registers' products: between fence and wait they are the matrix units'.
INLINE void hold(float (&d)[64]) {
#pragma unroll
  for (int i = 0; i < 64; i++) asm volatile("" : "+f"(d[i])::"memory");
}
#endif
