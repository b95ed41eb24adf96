// How wgmma's B operand lies in shared memory, and sums over an accumulator's rows. No instructions.
#pragma once
#include "../hopper/ptx.h"

// Rows of 128 bytes, groups of 8 rows 1024 bytes apart, 16-byte chunks swizzled by the row.
INLINE u64 operand_of(u32 address) {
  return (u64)((address & 0x3FFFF) >> 4) | ((u64)1 << 16) | ((u64)64 << 32) | ((u64)1 << 62);
}
// For ValueProduct: rows of 16 are the K side; each 64 of the N side lie `box_bytes` apart.
INLINE u64 value_operand(u32 address, int box_bytes) {
  return (u64)((address & 0x3FFFF) >> 4) | ((u64)(box_bytes >> 4) << 16) | ((u64)64 << 32) | ((u64)1 << 62);
}
INLINE u32 swizzled(u32 row, u32 chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

// Over the lanes that hold rows of one column.
INLINE float max_over_rows(float x) {
#pragma unroll
  for (int d = 4; d < 32; d *= 2) x = fmaxf(x, __shfl_xor_sync(EVERY_LANE, x, d));
  return x;
}
INLINE float sum_over_rows(float x) {
#pragma unroll
  for (int d = 4; d < 32; d *= 2) x += __shfl_xor_sync(EVERY_LANE, x, d);
  return x;
}
