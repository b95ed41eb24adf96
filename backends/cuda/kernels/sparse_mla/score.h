// S^T = K Q^T of one tile for one warpgroup: 16 keys a warp. The keys are wgmma's A operand, read
// from the ring into registers and widened there, so that no widened copy is ever written.
#pragma once
#include "ring.h"
#include "operands.h"
#include "../hopper/wgmma.h"

// Lane (g, q) of warp w holds keys 16 w + g and 16 w + 8 + g: s[4 j + e] is the first key's score
// for head 8 j + 2 q + e, s[4 j + 2 + e] the second key's.
typedef float Scores[HEADS / 2];

INLINE u64 query_operand(u32 shared, int tile, int step) {
  return operand_of(shared + QUERY) + (tile * HEAD_TILE + step % 4 * 32) / 16;
}

INLINE void score_bf16(Scores& s, u32 shared, u32 keys) {
  u32 a[2][8];  // 32 dims of 16 keys, and the next ones
#pragma unroll
  for (int step = 0; step < (LATENT + ROPE) / 32; step++) {
    u32* part = a[step & 1];
    load_matrices(part, keys + step * 64);
    load_matrices(part + 4, keys + step * 64 + 32);
    products_begin();
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int k = step * 2 + half;
      Product<HEADS, true>::add(s, part + 4 * half, query_operand(shared, k / 4, k), k != 0);
      if (QUERY_PARTS == 2 && k < LATENT / 16)
        Product<HEADS, true>::add(s, part + 4 * half, query_operand(shared, QUERY_TILES + k / 4, k), 1);
    }
    products_commit();
    products_wait<1>();
  }
}

// The f32 scales of a lane's two keys for 128 dims, as pairs of f16.
INLINE void key_scales(u32 row, int block, u32& first, u32& second) {
  const float a = load(row + SCALES_AT + block * 4) * LIFT;
  const float b = load(row + 8 * PITCH + SCALES_AT + block * 4) * LIFT;
  first = pack_f16(a, a), second = pack_f16(b, b);
}

INLINE void score_fp8(Scores& s, u32 shared, u32 keys, u32 row) {
  constexpr int DIMS = ROPE_IS_FP8 ? LATENT + ROPE : LATENT;
  constexpr int K16 = HEADS == 64 ? 2 : 4;  // products a step: fewer where registers are short
  constexpr int STEPS = DIMS / (16 * K16), STEPS_A_SCALE = 128 / (16 * K16);
  u32 raw[2 * K16], a[2][4 * K16], rope[8], first = 0, second = 0;
#pragma unroll
  for (int k = 0; k < K16 / 2; k++) load_matrices(raw + 4 * k, keys + k * 32);
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    u32* part = a[step & 1];
    if (IS_SCALED && step % STEPS_A_SCALE == 0) key_scales(row, step / STEPS_A_SCALE, first, second);
#pragma unroll
    for (int k = 0; k < K16; k++) {
      widen_e4m3(raw[2 * k], part[4 * k], part[4 * k + 2]);
      widen_e4m3(raw[2 * k + 1], part[4 * k + 1], part[4 * k + 3]);
      if (IS_SCALED) {
        part[4 * k] = multiply_f16(part[4 * k], first);
        part[4 * k + 2] = multiply_f16(part[4 * k + 2], first);
        part[4 * k + 1] = multiply_f16(part[4 * k + 1], second);
        part[4 * k + 3] = multiply_f16(part[4 * k + 3], second);
      }
    }
    products_begin();
#pragma unroll
    for (int i = 0; i < K16; i++) {
      const int k = step * K16 + i;
      Product<HEADS, false>::add(s, part + 4 * i, query_operand(shared, k / 4, k), k != 0);
    }
    products_commit();
    if (step + 1 < STEPS) {
#pragma unroll
      for (int k = 0; k < K16 / 2; k++) load_matrices(raw + 4 * k, keys + (step + 1) * K16 * 16 + k * 32);
      products_wait<1>();
    }
  }
  if constexpr (!ROPE_IS_FP8) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if (half) products_wait<0>();  // `rope` is read
      load_matrices(rope, keys + ROPE_AT + half * 64);
      load_matrices(rope + 4, keys + ROPE_AT + half * 64 + 32);
      products_begin();
#pragma unroll
      for (int i = 0; i < 2; i++)
        Product<HEADS, true>::add(s, rope + 4 * i, query_operand(shared, LATENT / 64, 2 * half + i), 1);
      products_commit();
    }
  }
}

// Waits until the scores are there.
INLINE void score(Scores& s, u32 shared, int tile, int warp, int lane) {
  const u32 stage = stage_of(shared, tile), first_key = warp % 4 * 16;
  const int matrix = lane >> 3, matrix_row = lane & 7;
  const u32 keys = stage + (first_key + (matrix & 1) * 8 + matrix_row) * PITCH + (matrix >> 1) * 16;
  if constexpr (IS_FP8) score_fp8(s, shared, keys, stage + (first_key + (lane >> 2)) * PITCH);
  else score_bf16(s, shared, keys);
  products_wait<0>();
}
