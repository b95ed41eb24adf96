// O^T += V^T P^T of one tile: every warp 64 dims of the latent, the cached rows again from the ring.
#pragma once
#include "ring.h"
#include "operands.h"
#include "../hopper/wgmma.h"

constexpr int DIM_TILES = 4;  // of 16 dims
// Of 16 dims, a lane (g, q) holds two: o[m][4 j + e] belongs to the first of them and head
// 8 j + 2 q + e, o[m][4 j + 2 + e] to the second. See first_dim.
typedef float Output[DIM_TILES][HEADS / 2];

INLINE int first_dim(int warp, int m, int g) { return warp * 64 + m * 16 + (IS_FP8 ? 2 * g : g); }
constexpr int SECOND_DIM = IS_FP8 ? 1 : 8;  // behind the first

// 16 keys of 64 dims in registers, as A operands of 16 dims each.
struct Values {
  u32 from, scales;  // addresses of the first tile's, without the tile
  u32 raw[8];
  float scale[4];

  INLINE Values(int warp, int lane) {
    const int matrix = lane >> 3, matrix_row = lane & 7;
    from = IS_FP8 ? ((matrix & 1) * 8 + matrix_row) * PITCH + (matrix >> 1) * 16 + warp * 64
                  : ((matrix >> 1) * 8 + matrix_row) * PITCH + (matrix & 1) * 16 + warp * 128;
    scales = 2 * (lane & 3) * PITCH + SCALES_AT + warp / 2 * 4;
  }
  INLINE void read_fp8(u32 keys) {
    load_transposed(raw, keys + from);
    load_transposed(raw + 4, keys + from + 32);
    if constexpr (IS_SCALED) {
      const u32 s = keys + scales;
      scale[0] = load(s), scale[1] = load(s + PITCH);
      scale[2] = load(s + 8 * PITCH), scale[3] = load(s + 9 * PITCH);
    }
  }
  INLINE void widen(u32 (&a)[4 * DIM_TILES]) {
#pragma unroll
    for (int m = 0; m < DIM_TILES; m++) {  // bytes: dims 2 g, 2 g + 1 of one key, then of the next
      widen_e4m3(__byte_perm(raw[2 * m], 0, 0x3120), a[4 * m], a[4 * m + 1]);
      widen_e4m3(__byte_perm(raw[2 * m + 1], 0, 0x3120), a[4 * m + 2], a[4 * m + 3]);
    }
    if constexpr (IS_SCALED) {
      const u32 low = pack_f16(scale[0] * LIFT, scale[1] * LIFT);
      const u32 high = pack_f16(scale[2] * LIFT, scale[3] * LIFT);
#pragma unroll
      for (int m = 0; m < DIM_TILES; m++) {
        a[4 * m] = multiply_f16(a[4 * m], low), a[4 * m + 1] = multiply_f16(a[4 * m + 1], low);
        a[4 * m + 2] = multiply_f16(a[4 * m + 2], high), a[4 * m + 3] = multiply_f16(a[4 * m + 3], high);
      }
    }
  }
  INLINE void read_bf16(u32 (&a)[4 * DIM_TILES], u32 keys) {
#pragma unroll
    for (int m = 0; m < DIM_TILES; m++) load_transposed(a + 4 * m, keys + from + m * 32);
  }
};

// Two tiles, whose weights lie one behind the other; releases each when it is read.
INLINE void add_values(Output& o, u32 shared, int tile, int warp, int lane) {
  constexpr int STEPS = 2 * TILE / 16;
  Values values(warp, lane);
  u32 a[2][4 * DIM_TILES];
  const u64 weights = operand_of(shared + WEIGHTS);
  auto keys = [&](int step) { return stage_of(shared, tile + step / 4) + step % 4 * (16 * PITCH); };
  if constexpr (IS_FP8) values.read_fp8(keys(0));
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    u32(&part)[4 * DIM_TILES] = a[step & 1];
    if constexpr (IS_FP8) values.widen(part);
    else values.read_bf16(part, keys(step));
    products_begin();
    const u64 operand = weights + (step / 4 * HEAD_TILE + step % 4 * 32) / 16;
#pragma unroll
    for (int m = 0; m < DIM_TILES; m++) Product<HEADS, !IS_FP8>::add(o[m], part + 4 * m, operand, 1);
    products_commit();
    if (IS_FP8 && step + 1 < STEPS) values.read_fp8(keys(step + 1));
    if (step + 1 < STEPS) products_wait<1>();
    if (step % 4 == 3) release(shared, tile + step / 4);
  }
  products_wait<0>();
}
