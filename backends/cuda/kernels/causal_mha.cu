// Causal attention in the expanded form (MHA of 192 and 128 dims) over whole contexts, for steps that
// bring many tokens a request: softmax(q k^T) v of query tiles of 128 rows and one head.
//
// At 2,048 tokens of one request and 128 heads: 172 GFLOP, and 101 MB of queries, 134 MB of keys and
// values (a head's, 1 MB, are read by 16 tiles out of L2) and 67 MB of results: bound by the products.
// A CTA draws one tile after another. Two warpgroups multiply, 64 rows each, keys and values from shared
// memory as one warp fills it by tensor maps (48 KB of queries; stages of KEYS * 384 and KEYS * 256
// bytes); weights go from the scores' registers to the second product's. A warpgroup starts the scores of
// the next tile of keys before it adds the values of the last, and has its softmax under both.
// Tiles of keys come from the last to the first, so that those which hide keys come first.
//
// Of rows without a token nothing is promised; rows behind the step's are not written.
// Macros: KEYS of a tile, STAGES, TAKE_TURNS (warpgroups start products in turn), SHARED_BYTES.
#include "causal_mha/load.h"
#include "causal_mha/softmax.h"
#include "causal_mha/write.h"

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
INLINE void attend(Output& o, Rows& rows, const QueryTile& tile, u32 shared, int& n, float scale, int group,
                   int thread) {
  const int lane = thread % 32, last = key_tiles(tile) - 1;
  Scores s;
  Weights p;
  float decay[2] = {1.f, 1.f};
#pragma unroll
  for (int i = 0; i < VALUE / 2; i++) o[i] = 0.f;
  auto finish_scores = [&](int t) {
    settle(s);
    arrive(key_empty(shared, n % STAGES));
    if ((t + 1) * KEYS - 1 > tile.least) hide_later_keys(s, rows, t * KEYS, lane);
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

INLINE void compute(u32 shared, const int* positions, __nv_bfloat16* out, long long row_stride, float scale,
                    int group, int thread) {
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
      for (int r = 0; r < 2; r++) {
        const bool is_row = row + 8 * r < tile.rows;
        rows.reach[r] = is_row ? positions[tile.row + row + 8 * r] + 1 : 0;
        rows.maximum[r] = NO_KEY, rows.sum[r] = 0.f;
      }
      attend(o, rows, tile, shared, n, scale, group, thread);
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

// Grid: as many CTAs as the device runs at once; 384 threads.
extern "C" __global__ void __launch_bounds__(GROUP * (GROUPS + 1), 1) sm90_causal_mha(
    const __grid_constant__ TensorMap q_nope,     // [step's rows, heads, 128], boxes of 128, 1, 64
    const __grid_constant__ TensorMap q_rope,     // [step's rows, heads, 64], boxes of 128, 1, 64
    const __grid_constant__ TensorMap expanded,   // [context rows, heads, 256], boxes of KEYS, 1, 64
    const __grid_constant__ TensorMap rope_keys,  // [context rows, 1, 64], boxes of KEYS, 1, 64
    const int* __restrict__ positions,            // [step's rows]
    const int* __restrict__ tiles,                // causal_mha/tile_list.h
    unsigned* __restrict__ tickets,               // [1]: how many were drawn, 0 when it begins
    __nv_bfloat16* __restrict__ out,              // [step's rows, heads of all groups, 128]
    long long row_stride, int heads, float scale) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const u32 shared = shared_address(memory);
  const int thread = threadIdx.x;
  if (thread == 0) init_barriers(shared);
  __syncthreads();
  if (thread >= COMPUTE_THREADS) {
    give_registers<LOAD_REGISTERS>();
    if (thread == COMPUTE_THREADS) load_work(shared, {q_nope, q_rope, expanded, rope_keys}, Work(tiles, heads), tickets);
  } else {
    take_registers<COMPUTE_REGISTERS>();
    compute(shared, positions, out, row_stride, scale * LOG2_E, thread / GROUP, thread % GROUP);
  }
}
