// Two warpgroups: O += P V, each for half of the latent, and what leaves.
#pragma once
#include "hopper/latent_product.h"
#include "ring.h"
#include "sparse_mla/cluster_sum.h"

constexpr int PARTS_A_GROUP = 2, PART = LATENT / 2 / PARTS_A_GROUP;  // of 128 dims
// Lane (g, q) of warp w: o[m][4 j + e] is head 16 (w % 4) + g and dim 256 (w / 4) + 128 m + 8 j + 2 q + e,
// o[m][4 j + 2 + e] of head 8 more.
typedef float Output[PARTS_A_GROUP][PART / 2];

INLINE void add_values(Output& o, u32 shared, int tile, int group) {
  const u64 weights = operand_of(stage_of(shared, tile) + WEIGHTS);
  const u64 values = value_operand(stage_of(shared, tile) + group * (LATENT / 128 * BOX), BOX);
  products_begin();
#pragma unroll
  for (int step = 0; step < TILE / 16; step++)
#pragma unroll
    for (int m = 0; m < PARTS_A_GROUP; m++)
      add_latent_product(o[m], weights + step * 2, values + (m * (PART / 64) * BOX + step * 16 * 128) / 16);
  products_commit();
  products_wait<0>();
#pragma unroll
  for (int m = 0; m < PARTS_A_GROUP; m++) settle(o[m]);
}

INLINE void write_output(const Output& o, const Result& result, u32 shared, int warp, int lane) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int head = warp % 4 * 16 + (lane >> 2) + r * 8;
    if (!result.has(head)) continue;
    const float factor = factor_of(load(shared + SUMS + head * 4));
    __nv_bfloat16* to = result.of(head) + warp / 4 * (LATENT / 2) + 2 * (lane & 3);
#pragma unroll
    for (int m = 0; m < PARTS_A_GROUP; m++)
#pragma unroll
      for (int j = 0; j < PART / 8; j++)
        *(u32*)(to + m * PART + 8 * j) = pack_bf16(o[m][4 * j + 2 * r] * factor, o[m][4 * j + 2 * r + 1] * factor);
  }
}

INLINE void keep_partial(const Output& o, u32 shared, int warp, int lane) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int head = warp % 4 * 16 + (lane >> 2) + r * 8;
    const u32 to = shared + (head * PARTIAL_PITCH + warp / 4 * (LATENT / 2) + 2 * (lane & 3)) * 4;
#pragma unroll
    for (int m = 0; m < PARTS_A_GROUP; m++)
#pragma unroll
      for (int j = 0; j < PART / 8; j++) store2(to + (m * PART + 8 * j) * 4, o[m][4 * j + 2 * r], o[m][4 * j + 2 * r + 1]);
  }
}

INLINE void sum_values(u32 shared, const Result& result, int tiles, int splits, int rank, int warp, int lane) {
  Output o;
#pragma unroll
  for (int m = 0; m < PARTS_A_GROUP; m++)
#pragma unroll
    for (int i = 0; i < PART / 2; i++) o[m][i] = 0.f;
  for (int t = 0; t < tiles; t++) {
    wait_scored(shared, t);
    wait_full(shared, t);
    if (load_word(moved_of(shared, t) + warp % 4 * 4)) {
      const u32 decay = decay_of(shared, t) + (warp % 4 * 16 + (lane >> 2)) * 4;
      const float factor[2] = {load(decay), load(decay + 32)};
#pragma unroll
      for (int m = 0; m < PARTS_A_GROUP; m++)
#pragma unroll
        for (int i = 0; i < PART / 2; i++) o[m][i] *= factor[i >> 1 & 1];
    }
    add_values(o, shared, t, warp / 4);
    arrive(empty_barrier(shared, t));
  }
  arrive(shared + SUMMED);
  wait_for(shared + SUMMED, 0);  // for sums, and until no product reads what partial sums overwrite
  if (splits == 1) {
    write_output(o, result, shared, warp, lane);
  } else {
    keep_partial(o, shared, warp, lane);
    sum_over_cluster(result, shared, splits, rank, warp, lane);
  }
}
