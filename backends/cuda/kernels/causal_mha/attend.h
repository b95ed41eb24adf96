// How a CTA's two warpgroups attend to the tiles that the loading thread brings, 64 rows each: weights go
// from the scores' registers to the second product's. A warpgroup starts the scores of the next tile of
// keys before it adds the values of the last, and has its softmax under both.
#pragma once
#include "softmax.h"
#include "write.h"

constexpr float LOG2_E = 1.44269504089f;
constexpr int LOAD_REGISTERS = 40, COMPUTE_REGISTERS = 232;

// Values behind the context are nobody's, maybe NaN: zeros take their place, by all computing threads.
INLINE void clear_behind(u32 shared, int stage, int keys, int thread) {
  const u32 values = shared + VALUE_RING + stage * VALUE_BYTES;
  for (int i = thread; i < (KEYS - keys) * 16; i += COMPUTE_THREADS)
    store4(values + (i & 8 ? KEY_BOX : 0) + (keys + i / 16) * 128 + (i & 7) * 16, 0, 0, 0, 0);
  fence_async();
  named_barrier(ALL_COMPUTE, COMPUTE_THREADS);
}

// One tile for one warpgroup; `n` counts the CTA's tiles of keys. Leaves the result unscaled.
template <class Keys>
INLINE void attend(Output& o, Rows& rows, Keys& keys, const QueryTile& tile, u32 shared, int& n, float scale,
                   int group, int thread) {
  const int lane = thread % 32, last = key_tiles(tile) - 1;
  Scores s;
  Weights p;
  float decay[2] = {1.f, 1.f};
#pragma unroll
  for (int i = 0; i < VALUE / 2; i++) o[i] = 0.f;
  auto finish_scores = [&](int t) {
    settle(s);
    arrive(key_empty(shared, n % STAGES));
    keys.hide(s, t, lane);
    return weigh(s, rows, decay, scale);
  };

  wait_for(key_full(shared, n % STAGES), n / STAGES & 1);
  take_turn(group);
  products_begin();
  begin_scores(s, shared, n % STAGES, group);
  pass_turn(group);
  products_wait<0>();
  bool moves = finish_scores(last);
  if ((last + 1) * KEYS > tile.length) {
    wait_for(value_full(shared, n % STAGES), n / STAGES & 1);
    clear_behind(shared, n % STAGES, tile.length - last * KEYS, group * GROUP + thread);
  }
  // The values of the tile before are waited for in the next round: were the wait behind the softmax,
  // ptxas would put it in front.
  auto finish_values = [&](bool any) {
    products_wait<0>();
    settle(o);
    if (any) arrive(value_empty(shared, (n + STAGES - 1) % STAGES));
    if (moves) scale_rows(o, decay);
    pack(p, s);
  };
#pragma unroll 1
  for (int t = last - 1; t >= 0; t--) {
    finish_values(t != last - 1);
    n++;
    wait_for(key_full(shared, n % STAGES), n / STAGES & 1);
    take_turn(group);
    products_begin();
    begin_scores(s, shared, n % STAGES, group);
    wait_for(value_full(shared, (n - 1) % STAGES), (n - 1) / STAGES & 1);
    products_begin();
    begin_values(o, p, shared, (n - 1) % STAGES);
    pass_turn(group);
    products_wait<1>();
    moves = finish_scores(t);
  }
  finish_values(last != 0);
  wait_for(value_full(shared, n % STAGES), n / STAGES & 1);
  products_begin();
  begin_values(o, p, shared, n % STAGES);
  products_wait<0>();
  settle(o);
  arrive(value_empty(shared, n % STAGES));
  n++;
}

// All items of one warpgroup. `Keys` say which keys a lane's two rows take: made of their source, the tile,
// the first row in it and the lane; hide(scores, t, lane) gives -inf to those of tile t that it does not.
template <class Keys>
INLINE void compute(u32 shared, typename Keys::Source source, __nv_bfloat16* out, long long row_stride,
                    float scale, int group, int thread) {
  int n = 0;
  if (group == 1) pass_turn(group);
  for (int queries = 0;; queries++) {
    wait_for(query_full(shared), queries & 1);
    Rows rows;
    Output o;
    {
      const auto [head, tile] = told(shared);
      if (head == NO_HEAD) break;
      const int row = group * GROUP_ROWS + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
      for (int r = 0; r < 2; r++) rows.maximum[r] = NO_KEY, rows.sum[r] = 0.f;
      Keys keys(source, tile, row, thread % 32);
      attend(o, rows, keys, tile, shared, n, scale, group, thread);
    }
    float share[2];
#pragma unroll
    for (int r = 0; r < 2; r++) share[r] = 1.f / fmaxf(sum_over_columns(rows.sum[r]), 1e-30f);
    scale_rows(o, share);
    const auto [head, tile] = told(shared);  // again: registers were short
    const int first = group * GROUP_ROWS;
    __nv_bfloat16* to = out + (tile.row + first) * row_stride + head * VALUE;
    write_rows(o, to, row_stride, tile.rows - first, shared, group, thread);
    arrive(query_empty(shared));
  }
}
