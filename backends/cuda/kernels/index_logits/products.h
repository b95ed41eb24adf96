// A row group's products by how keys are stored: D[64 keys, N heads] += A[64, 32 bytes] B[N, 32 bytes]^T,
// both by rows of 128 bytes with a 128-byte swizzle. Knows no sizes.
#pragma once
#if ELEMENT_BYTES == 1
#include "../hopper/wgmma_fp8_widths.h"

// `keep` 0 overwrites D; how many heads, the sums say.
template <int SUMS> INLINE void add_product(float (&d)[SUMS], u32 a, u32 b, int keep) {
  add_e4m3_product(d, rows_operand(a), rows_operand(b), keep);
}
// No instruction may move across these registers' products.
template <int SUMS> INLINE void hold_sums(float (&d)[SUMS]) { hold(d); }
#else
#include "../hopper/operands.h"
#include "../hopper/tile_products.h"

template <int SUMS> INLINE void add_product(float (&d)[SUMS], u32 a, u32 b, int keep) {
  TileProduct<2 * SUMS>::add(d, operand_of(a), operand_of(b), keep);
}
template <int SUMS> INLINE void hold_sums(float (&d)[SUMS]) { settle(d); }
#endif
