// Products of a warpgroup with the second side dense in N, both in shared memory: D[64, 128] += A[64, 16]
// B[16, 128] of bf16, f32 sums; and with 48 rows of N. Knows no kernel.
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

// Tiles of 48 keys, by rows of N: of A in shared memory and in registers.
#define ACC24 ACC16, ACC8_AT(16)
#define ACC8_AT(i) ACC4(i), ACC4(i + 4)
template <> struct TileProduct<48> {
  static INLINE void add(float (&d)[24], u64 a, u64 b, int keep) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %26, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n48k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23 "
        "}, %24, %25, p, 1, 1, 0, 0;\n}\n"
        : ACC24
        : "l"(a), "l"(b), "r"(keep));
  }
};
template <> struct Product<48, true> {
  static INLINE void add(float (&d)[24], const u32* a, u64 b, int keep) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %29, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n48k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23 "
        "}, {%24, %25, %26, %27}, %28, p, 1, 1, 0;\n}\n"
        : ACC24
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
  }
};
#endif
