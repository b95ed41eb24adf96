// The query of one row for HEADS heads: from f32 latents and bf16 rope to wgmma's B operand.
#pragma once
#include "hopper/operands.h"
#include "layout.h"
#include "row_inputs.h"

// 16 dims of a head as operand words. widen_e4m3 yields the dims of each 16 in another order, so
// the query for e4m3 keys lies in that order, too.
INLINE void put(u32 shared, int tile, int chunk, int head, const u32 (&y)[8]) {
  const u32 to = shared + QUERY + tile * HEAD_TILE;
  store4(to + swizzled(head, chunk), y[0], y[1], y[2], y[3]);
  store4(to + swizzled(head, chunk + 1), y[4], y[5], y[6], y[7]);
}

// By all computing threads; a barrier must follow.
INLINE void stage_query(u32 shared, const Query& query, int row, int first_head, int thread) {
  constexpr int PARTS_A_HEAD = (LATENT + ROPE) / 16;
#pragma unroll 2
  for (int i = thread; i < HEADS * PARTS_A_HEAD; i += COMPUTE_THREADS) {
    const int head = i / PARTS_A_HEAD, part = i % PARTS_A_HEAD;
    const int tile = part / 4, chunk = part % 4 * 2;
    const bool is_rope = part >= LATENT / 16;
    float x[16];
    query.read(x, row, first_head + head, part);
    u32 y[8];
    if (IS_FP8 && (ROPE_IS_FP8 || !is_rope)) {
#pragma unroll
      for (int j = 0; j < 8; j++) y[(j >> 1) + (j & 1) * 4] = pack_f16(x[2 * j], x[2 * j + 1]);
      put(shared, tile, chunk, head, y);
      continue;
    }
    const float lift = is_rope ? LIFT : 1.f;  // as large as the lifted latents beside it
#pragma unroll
    for (int j = 0; j < 8; j++) y[j] = pack_bf16(x[2 * j] * lift, x[2 * j + 1] * lift);
    put(shared, tile, chunk, head, y);
    if (QUERY_PARTS == 2 && !is_rope) {
#pragma unroll
      for (int j = 0; j < 8; j++) y[j] = pack_bf16(x[2 * j] - low_bf16(y[j]), x[2 * j + 1] - high_bf16(y[j]));
      put(shared, QUERY_TILES + tile, chunk, head, y);
    }
  }
  if (thread < HEADS) store(shared + MAXIMA + thread * 4, NO_KEY);
  fence_async();
}
