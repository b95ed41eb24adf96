// The two products of a warpgroup over one tile of keys, and when it may run them.
#pragma once
#include "layout.h"

// Lane (g, q) of warp w holds rows 16 w + g and 16 w + 8 + g: s[4 j + e] is the first row's number in
// column 8 j + 2 q + e, s[4 j + 2 + e] the second's. Columns are keys, or dims of the result.
typedef float Scores[KEYS / 2];
typedef float Output[VALUE / 2];
typedef u32 Weights[KEYS / 4];  // of KEYS / 16 operands of 16 keys

// S = Q K^T; not waited for.
INLINE void begin_scores(Scores& s, u32 shared, int stage, int group) {
  const u64 queries = operand_of(shared + QUERY + group * GROUP_ROWS * 128);
  const u64 keys = operand_of(shared + KEY_RING + stage * KEY_BYTES);
#pragma unroll
  for (int k = 0; k < (NOPE + ROPE) / 16; k++) {
    const int box = k / 4, dims = k % 4 * 2;  // 32 bytes of each row
    TileProduct<KEYS>::add(s, queries + box * QUERY_BOX / 16 + dims, keys + box * KEY_BOX / 16 + dims, k != 0);
  }
  products_commit();
}

// O += P V; not waited for.
INLINE void begin_values(Output& o, const Weights& p, u32 shared, int stage) {
  const u64 values = value_operand(shared + VALUE_RING + stage * VALUE_BYTES, KEY_BOX);
#pragma unroll
  for (int k = 0; k < KEYS / 16; k++) ValueProduct<VALUE>::add(o, p + 4 * k, values + k * (16 * 128 / 16));
  products_commit();
}

// While one warpgroup multiplies, the other has its softmax: they take turns to start products.
INLINE void take_turn(int group) {
  if constexpr (TAKE_TURNS) named_barrier(TURN + group, COMPUTE_THREADS);
}
INLINE void pass_turn(int group) {
  if constexpr (TAKE_TURNS) arrive_named(TURN + (group ^ 1), COMPUTE_THREADS);
}
