// Products as in wgmma_fp8.h of other widths: D[64, N] += A[64, 32] B[N, 32]^T. Which width is meant,
// the sums say: N / 2 a thread. Knows no kernel.
// The tests put another file in place of this one, too (cuda_twin/tiles.h).
#ifndef HOPPER_WGMMA_FP8_WIDTHS
#define HOPPER_WGMMA_FP8_WIDTHS
#include "wgmma_fp8.h"

#define ACC24 ACC16, ACC4(16), ACC4(20)
#define ACC28 ACC24, ACC4(24)
#define ACC36 ACC32, ACC4(32)
#define ACC40 ACC36, ACC4(36)
#define ACC48 ACC40, ACC4(40), ACC4(44)
#define ACC56 ACC48, ACC4(48), ACC4(52)
#define ACC72 ACC64, ACC4(64), ACC4(68)
#define ACC80 ACC72, ACC4(72), ACC4(76)
#define ACC96 ACC80, ACC4(80), ACC4(84), ACC4(88), ACC4(92)
#define ACC128 ACC96, ACC4(96), ACC4(100), ACC4(104), ACC4(108), ACC4(112), ACC4(116), ACC4(120), ACC4(124)

// Operands 0 to N - 1 of an instruction.
#define FIRST8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define FIRST16 FIRST8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define FIRST24 FIRST16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define FIRST28 FIRST24 ", %24, %25, %26, %27"
#define FIRST32 FIRST28 ", %28, %29, %30, %31"
#define FIRST36 FIRST32 ", %32, %33, %34, %35"
#define FIRST40 FIRST36 ", %36, %37, %38, %39"
#define FIRST48 FIRST40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define FIRST56 FIRST48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define FIRST64 FIRST56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define FIRST72 FIRST64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define FIRST80 FIRST72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define FIRST96 FIRST80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define FIRST128 FIRST96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// `keep` 0 overwrites D. A, B and KEEP are the operands' numbers.
#define E4M3_PRODUCT(COLUMNS, SUMS, A, B, KEEP)                                                \
  INLINE void add_e4m3_product(float (&d)[SUMS], u64 a, u64 b, int keep) {                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #KEEP ", 0;\n"                          \
                 "wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k32.f32.e4m3.e4m3 {" FIRST##SUMS \
                 "}, %" #A ", %" #B ", p, 1, 1;\n}\n"                                          \
                 : ACC##SUMS                                                                   \
                 : "l"(a), "l"(b), "r"(keep));                                                 \
  }
E4M3_PRODUCT(16, 8, 8, 9, 10)
E4M3_PRODUCT(32, 16, 16, 17, 18)
E4M3_PRODUCT(48, 24, 24, 25, 26)
E4M3_PRODUCT(64, 32, 32, 33, 34)
E4M3_PRODUCT(80, 40, 40, 41, 42)
E4M3_PRODUCT(96, 48, 48, 49, 50)
E4M3_PRODUCT(112, 56, 56, 57, 58)
E4M3_PRODUCT(160, 80, 80, 81, 82)
E4M3_PRODUCT(192, 96, 96, 97, 98)
E4M3_PRODUCT(256, 128, 128, 129, 130)

template <int SUMS> INLINE void hold(float (&d)[SUMS]) {
#pragma unroll
  for (int i = 0; i < SUMS; i++) asm volatile("" : "+f"(d[i])::"memory");
}
#endif
