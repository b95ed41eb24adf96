// Products of a warpgroup with the M side in registers: D[64, N] += A[64, 16] B[16, N], f32 sums.
// A and B are f16 or bf16; B lies in shared memory by rows of N, 128-byte swizzle. Knows no kernel.
// The tests put another file in place of this one, too.
#ifndef HOPPER_WGMMA
#define HOPPER_WGMMA
#include "ptx.h"

INLINE void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
INLINE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int GROUPS> INLINE void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
}

// `keep` 0 overwrites D.
template <int N, bool IS_BF16> struct Product;

#define ACC4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ACC8 ACC4(0), ACC4(4)
#define ACC16 ACC8, ACC4(8), ACC4(12)
#define ACC32 ACC16, ACC4(16), ACC4(20), ACC4(24), ACC4(28)

#define PRODUCT_16(TYPE, IS_BF16)                                                          \
  template <> struct Product<16, IS_BF16> {                                                \
    static INLINE void add(float (&d)[8], const u32* a, u64 b, int keep) {                 \
      asm volatile(                                                                        \
          "{\n.reg .pred p;\nsetp.ne.b32 p, %13, 0;\n"                                   \
          "wgmma.mma_async.sync.aligned.m64n16k16.f32." TYPE "." TYPE " {"                 \
          "%0, %1, %2, %3, %4, %5, %6, %7" \
          "}, {%8, %9, %10, %11}, %12, p, 1, 1, 0;\n}\n"                      \
          : ACC8                                                                         \
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));                \
    }                                                                                      \
  };
PRODUCT_16("f16", false)
PRODUCT_16("bf16", true)

#define PRODUCT_32(TYPE, IS_BF16)                                                          \
  template <> struct Product<32, IS_BF16> {                                                \
    static INLINE void add(float (&d)[16], const u32* a, u64 b, int keep) {                 \
      asm volatile(                                                                        \
          "{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n"                                   \
          "wgmma.mma_async.sync.aligned.m64n32k16.f32." TYPE "." TYPE " {"                 \
          "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
          "}, {%16, %17, %18, %19}, %20, p, 1, 1, 0;\n}\n"                      \
          : ACC16                                                                         \
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));                \
    }                                                                                      \
  };
PRODUCT_32("f16", false)
PRODUCT_32("bf16", true)

#define PRODUCT_64(TYPE, IS_BF16)                                                          \
  template <> struct Product<64, IS_BF16> {                                                \
    static INLINE void add(float (&d)[32], const u32* a, u64 b, int keep) {                 \
      asm volatile(                                                                        \
          "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                                   \
          "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {"                 \
          "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
          "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" \
          "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}\n"                      \
          : ACC32                                                                         \
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));                \
    }                                                                                      \
  };
PRODUCT_64("f16", false)
PRODUCT_64("bf16", true)
#endif
