// Weights of a tile's keys, base 2, in registers. A row's reference maximum moves only when a score
// passes it by 2^SLACK: then what was summed is scaled. bf16 holds weights of up to 2^SLACK as exactly.
#pragma once
#include "products.h"

constexpr float SLACK = 8.f;
constexpr float NO_KEY = -1e30f;  // the maximum before the first key; finite, so that -inf - it is -inf

// Of a lane's two rows.
struct Rows {
  float maximum[2];  // of the scores, not scaled
  float sum[2];      // of the weights in this lane's columns
};

INLINE float max_over_columns(float x) {
  x = fmaxf(x, __shfl_xor_sync(EVERY_LANE, x, 1));
  return fmaxf(x, __shfl_xor_sync(EVERY_LANE, x, 2));
}
INLINE float sum_over_columns(float x) {
  x += __shfl_xor_sync(EVERY_LANE, x, 1);
  return x + __shfl_xor_sync(EVERY_LANE, x, 2);
}

// Scores into weights; `scale` makes them powers of 2. True for the whole warp where a maximum moved:
// then what was summed before is worth `decay` of it.
INLINE bool weigh(Scores& s, Rows& rows, float (&decay)[2], float scale) {
  bool is_above = false;
  float highest[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float x = s[2 * r];
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++) x = fmaxf(x, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
    highest[r] = max_over_columns(x);
    is_above |= (highest[r] - rows.maximum[r]) * scale > SLACK;
  }
  const bool moves = __any_sync(EVERY_LANE, is_above);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    if (moves) {
      const float before = rows.maximum[r];
      rows.maximum[r] = fmaxf(before, highest[r]);
      decay[r] = exp2_fast((before - rows.maximum[r]) * scale);
      rows.sum[r] *= decay[r];
    }
    const float shift = -rows.maximum[r] * scale;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float& x = s[4 * j + 2 * r + e];
        x = exp2_fast(fmaf(x, scale, shift));
        rows.sum[r] += x;
      }
  }
  return moves;
}

INLINE void pack(Weights& p, const Scores& s) {
#pragma unroll
  for (int i = 0; i < KEYS / 4; i++) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

INLINE void scale_rows(Output& o, const float (&factor)[2]) {
#pragma unroll
  for (int i = 0; i < VALUE / 2; i++) o[i] *= factor[i >> 1 & 1];
}
