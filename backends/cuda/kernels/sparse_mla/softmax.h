// Weights of two tiles' keys, base 2. The reference maximum of a head moves only when a score passes
// it by 2^8: then all that was summed is scaled. Weights stay below 2^8, which f16 holds.
#pragma once
#include "score.h"
#include "values.h"

constexpr float SLACK = 8.f;
typedef float Sums[HEADS / 4];  // of the weights of a lane's keys: [2 j + e] for head 8 j + 2 q + e

INLINE u32 of_heads(u32 array, int j, int lane) { return array + (8 * j + 2 * (lane & 3)) * 4; }

INLINE void move_maxima(const Scores& s, Output& o, Sums& sums, u32 shared, int warp, int lane) {
  const int thread = warp * 32 + lane;
#pragma unroll
  for (int j = 0; j < HEADS / 8; j++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const float highest = max_over_rows(fmaxf(s[4 * j + e], s[4 * j + 2 + e]));
      if (lane < 4) store(of_heads(shared + PARTS + warp * HEADS * 4, j, lane) + e * 4, highest);
    }
  named_barrier(ALL_COMPUTE, COMPUTE_THREADS);
  if (thread < HEADS) {
    const float before = load(shared + MAXIMA + thread * 4);
    float highest = before;
#pragma unroll
    for (int w = 0; w < COMPUTE_WARPS; w++) highest = fmaxf(highest, load(shared + PARTS + (w * HEADS + thread) * 4));
    store(shared + MAXIMA + thread * 4, highest);
    store(shared + DECAY + thread * 4, exp2_fast(before - highest));
  }
  named_barrier(ALL_COMPUTE, COMPUTE_THREADS);
#pragma unroll
  for (int j = 0; j < HEADS / 8; j++) {
    float first, second;
    load2(of_heads(shared + DECAY, j, lane), first, second);
    sums[2 * j] *= first, sums[2 * j + 1] *= second;
#pragma unroll
    for (int m = 0; m < DIM_TILES; m++) {
      o[m][4 * j] *= first, o[m][4 * j + 1] *= second;
      o[m][4 * j + 2] *= first, o[m][4 * j + 3] *= second;
    }
  }
}

// Turns a warpgroup's scores into weights in shared memory. `scale` makes them powers of 2. Has
// barriers of all computing threads.
INLINE void weigh(Scores& s, Output& o, Sums& sums, float scale, u32 shared, int tile, int warp, int lane) {
  const u32 mask = mask_of(shared, tile) + (warp % 4 * 16 + (lane >> 2)) * 4;
  const float first_mask = load(mask), second_mask = load(mask + 32);
  bool is_above = false;
#pragma unroll
  for (int j = 0; j < HEADS / 8; j++) {
    float m0, m1;
    load2(of_heads(shared + MAXIMA, j, lane), m0, m1);
    s[4 * j] = fmaf(s[4 * j], scale, first_mask), s[4 * j + 1] = fmaf(s[4 * j + 1], scale, first_mask);
    s[4 * j + 2] = fmaf(s[4 * j + 2], scale, second_mask), s[4 * j + 3] = fmaf(s[4 * j + 3], scale, second_mask);
    is_above |= fmaxf(s[4 * j], s[4 * j + 2]) > m0 + SLACK || fmaxf(s[4 * j + 1], s[4 * j + 3]) > m1 + SLACK;
  }
  if (any_in_barrier(ANY_ABOVE, COMPUTE_THREADS, is_above)) move_maxima(s, o, sums, shared, warp, lane);
  const u32 weights = shared + WEIGHTS + warp / 4 * HEAD_TILE;
  const int matrix = lane >> 3, matrix_row = lane & 7;
#pragma unroll
  for (int pair = 0; pair < HEADS / 16; pair++) {
    u32 p[4];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int j = 2 * pair + half;
      float m0, m1;
      load2(of_heads(shared + MAXIMA, j, lane), m0, m1);
      const float p0 = exp2_fast(s[4 * j] - m0), p1 = exp2_fast(s[4 * j + 1] - m1);
      const float p2 = exp2_fast(s[4 * j + 2] - m0), p3 = exp2_fast(s[4 * j + 3] - m1);
      sums[2 * j] += p0 + p2, sums[2 * j + 1] += p1 + p3;
      p[2 * half] = IS_FP8 ? pack_f16(p0, p1) : pack_bf16(p0, p1);
      p[2 * half + 1] = IS_FP8 ? pack_f16(p2, p3) : pack_bf16(p2, p3);
    }
    // matrices: 8 heads with the first 8 keys, these with the next 8 keys, the next 8 heads
    const u32 head = pair * 16 + (matrix >> 1) * 8 + matrix_row;
    store_transposed(weights + swizzled(head, warp % 4 * 2 + (matrix & 1)), p);
  }
  fence_async();
  named_barrier(ALL_COMPUTE, COMPUTE_THREADS);
}

// The sum of weights of each head over all keys of the CTA, in SUMS.
INLINE void sum_weights(const Sums& sums, u32 shared, int warp, int lane) {
  const int thread = warp * 32 + lane;
#pragma unroll
  for (int i = 0; i < HEADS / 4; i++) {
    const float sum = sum_over_rows(sums[i]);
    if (lane < 4) store(of_heads(shared + PARTS + warp * HEADS * 4, i / 2, lane) + i % 2 * 4, sum);
  }
  named_barrier(ALL_COMPUTE, COMPUTE_THREADS);
  if (thread < HEADS) {
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < COMPUTE_WARPS; w++) sum += load(shared + PARTS + (w * HEADS + thread) * 4);
    store(shared + SUMS + thread * 4, sum);
  }
  named_barrier(ALL_COMPUTE, COMPUTE_THREADS);
}
