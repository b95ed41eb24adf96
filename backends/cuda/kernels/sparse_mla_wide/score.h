// The scoring warps: S = Q K^T of a tile, its weights, base 2, into shared memory. A row of heads is
// four lanes' own. A head's reference maximum moves only when a score passes it by 2^SLACK: then what was
// summed is scaled by those who hold it.
#pragma once
#include "hopper/latent_product.h"
#include "query.h"

constexpr float SLACK = 8.f;
// Lane (g, q) of warp w: s[4 j + e] is the score of head 16 w + g and key 8 j + 2 q + e, s[4 j + 2 + e] of
// head 8 more.
typedef float Scores[TILE / 2];

// Of a lane's two heads. Weights are 2^(score * scale + shift): the shift is the reference maximum's.
struct Heads {
  float shift[2], sum[2];  // sums of the lane's own keys
};

INLINE void begin_scores(Scores& s, const KeptQuery& kept, u32 shared, int tile) {
  const u64 keys = operand_of(stage_of(shared, tile));
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    const u64 part = keys + (step / 4 * BOX + step % 4 * 32) / 16;
    if (QUERY_PARTS == 2) TileProduct<TILE>::add(s, query_operand(shared, 0, step), part, step != 0);
    if (QUERY_PARTS == 2 && step >= LATENT_STEPS) continue;
    if (step < KEPT_STEPS) Product<TILE, true>::add(s, kept + 4 * step, part, QUERY_PARTS == 2 || step != 0);
    else TileProduct<TILE>::add(s, query_operand(shared, QUERY_PARTS - 1, step), part, 1);
  }
  products_commit();
}

INLINE float of_quad(float x, bool is_sum) {
#pragma unroll
  for (int d = 1; d < 4; d *= 2) {
    const float other = __shfl_xor_sync(EVERY_LANE, x, d);
    x = is_sum ? x + other : fmaxf(x, other);
  }
  return x;
}

// Keys that are not there weigh nothing: `there` has 16 keys' bits in each word.
INLINE void hide_keys(Scores& s, u32 there, int lane) {
  u32 every = 0xffff;
#pragma unroll
  for (int w = 0; w < LOAD_WARPS; w++) every &= load_word(there + 4 * w);
  if (every == 0xffff) return;
#pragma unroll
  for (int j = 0; j < TILE / 8; j++) {
    const u32 bits = load_word(there + j / 2 * 4) >> (j % 2 * 8 + (lane & 3) * 2);
    if (!(bits & 1)) s[4 * j] = s[4 * j + 2] = -INFINITY;
    if (!(bits & 2)) s[4 * j + 1] = s[4 * j + 3] = -INFINITY;
  }
}

// Scores into weights; `scale` makes them powers of 2. Says, and stores for those who hold it, whether and
// by how much what was summed before decays.
INLINE void weigh(Scores& s, Heads& heads, float scale, u32 moved, u32 decay, int lane) {
  float highest[2];
  bool is_above = false;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float x = s[2 * r];
#pragma unroll
    for (int j = 0; j < TILE / 8; j++) x = fmaxf(x, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
    highest[r] = of_quad(x, false) * scale;
    is_above |= highest[r] + heads.shift[r] > SLACK;
  }
  const bool moves = __any_sync(EVERY_LANE, is_above);
  if (lane == 0) store_word(moved, moves);
  if (moves) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const float before = heads.shift[r];
      heads.shift[r] = fminf(before, -highest[r]);
      const float factor = exp2_fast(heads.shift[r] - before);
      heads.sum[r] *= factor;
      if (lane % 4 == 0) store(decay + r * 32, factor);
    }
  }
#pragma unroll
  for (int i = 0; i < TILE / 2; i++) {
    s[i] = exp2_fast(fmaf(s[i], scale, heads.shift[i >> 1 & 1]));
    heads.sum[i >> 1 & 1] += s[i];
  }
}

INLINE void store_weights(const Scores& s, u32 to, int warp, int lane) {
  const int head = warp * 16 + (lane & 15);
#pragma unroll
  for (int k = 0; k < TILE / 16; k++) {  // matrices: 8 heads, 8 more, both for the next 8 keys
    u32 p[4];
#pragma unroll
    for (int i = 0; i < 4; i++) p[i] = pack_bf16(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
    store_matrices(to + swizzled(head, 2 * k + (lane >> 4)), p);
  }
}

INLINE void score_tiles(u32 shared, int tiles, int splits, float scale, int warp, int lane) {
  KeptQuery kept;
  take_query(kept, shared, warp, lane);
  Heads heads = {{-NO_KEY, -NO_KEY}, {0.f, 0.f}};
  const u32 own = (warp * 16 + (lane >> 2)) * 4;  // a lane's first head in arrays of them
  for (int t = 0; t < tiles; t++) {
    Scores s;
    wait_full(shared, t);
    products_begin();
    begin_scores(s, kept, shared, t);
    products_wait<0>();
    settle(s);
    hide_keys(s, there_of(shared, t), lane);
    weigh(s, heads, scale, moved_of(shared, t) + warp * 4, decay_of(shared, t) + own, lane);
    named_barrier(ALL_SCORE, SCORE_THREADS);  // all products have read the rope
    store_weights(s, stage_of(shared, t) + WEIGHTS, warp, lane);
    fence_async();
    arrive(scored_barrier(shared, t));
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const float sum = of_quad(heads.sum[r], true);
    if (lane % 4 == 0) store(shared + SUMS + own + r * 32, sum), store(shared + MAXIMA + own + r * 32, -heads.shift[r]);
  }
  arrive(shared + SUMMED);
  if (splits == 1) return;
  cluster_barrier();  // for itself: other CTAs read its maxima and sums
  cluster_barrier();  // and have read them
}
