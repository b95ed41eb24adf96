// Products of a warpgroup with the second side dense in N, both in shared memory: D[64, 128] += A[64, 16]
// B[16, 128] of bf16, f32 sums. Knows no kernel.
// The tests put another file in place of this one, too.
#ifndef HOPPER_LATENT_PRODUCT
#define HOPPER_LATENT_PRODUCT
#include "tile_products.h"

// A by rows of 128 bytes, B as value_operand (operands.h) says.
INLINE void add_latent_product(float (&d)[64], u64 a, u64 b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
      "}, %64, %65, 1, 1, 1, 0, 1;\n"
      : ACC64
      : "l"(a), "l"(b));
}
#endif
