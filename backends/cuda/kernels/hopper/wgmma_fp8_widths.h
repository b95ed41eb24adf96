// Products as in wgmma_fp8.h of other widths: D[64, N] += A[64, 32] B[N, 32]^T for 64 and 256 columns.
// Which width is meant, the sums say: N / 2 a thread. Knows no kernel.
// The tests put another file in place of this one, too (cuda_twin/tiles.h).
#ifndef HOPPER_WGMMA_FP8_WIDTHS
#define HOPPER_WGMMA_FP8_WIDTHS
#include "wgmma_fp8.h"

#define ACC128 \
  ACC64, ACC4(64), ACC4(68), ACC4(72), ACC4(76), ACC4(80), ACC4(84), ACC4(88), ACC4(92), ACC4(96), ACC4(100), \
      ACC4(104), ACC4(108), ACC4(112), ACC4(116), ACC4(120), ACC4(124)

INLINE void add_e4m3_product(float (&d)[32], u64 a, u64 b, int keep) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, %32, %33, p, 1, 1;\n}\n"
      : ACC32
      : "l"(a), "l"(b), "r"(keep));
}
INLINE void add_e4m3_product(float (&d)[128], u64 a, u64 b, int keep) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, p, 1, 1;\n}\n"
      : ACC128
      : "l"(a), "l"(b), "r"(keep));
}
INLINE void hold(float (&d)[32]) {
#pragma unroll
  for (int i = 0; i < 32; i++) asm volatile("" : "+f"(d[i])::"memory");
}
INLINE void hold(float (&d)[128]) {
#pragma unroll
  for (int i = 0; i < 128; i++) asm volatile("" : "+f"(d[i])::"memory");
}
#endif
