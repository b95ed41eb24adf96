// Causal attention in the expanded form (MHA of 192 and 128 dims) over whole contexts, for steps that
// bring many tokens a request: softmax(q k^T) v of query tiles of 128 rows and one head.
//
// At 2,048 tokens of one request and 128 heads: 172 GFLOP, and 101 MB of queries, 134 MB of keys and
// values (a head's, 1 MB, are read by 16 tiles out of L2) and 67 MB of results: bound by the products.
// A CTA draws one tile after another. One warp fills shared memory by tensor maps (48 KB of queries;
// stages of KEYS * 384 and KEYS * 256 bytes), two warpgroups multiply (causal_mha/attend.h).
//
// Of rows without a token nothing is promised; rows behind the step's are not written.
// Macros: KEYS of a tile, STAGES, TAKE_TURNS (warpgroups start products in turn), SHARED_BYTES.
#include "causal_mha/attend.h"
#include "causal_mha/load.h"

// Of a lane's two rows: every key up to the row's own position. Tiles of keys come from the last to the
// first, so that those which hide keys come first.
struct VisibleKeys {
  typedef const int* Source;  // [step's rows]: positions

  int reach[2];  // keys that the row sees: its position and one
  int least;     // all rows of the tile see the keys up to it

  INLINE VisibleKeys(Source positions, const QueryTile& tile, int row, int) : least(tile.least) {
#pragma unroll
    for (int r = 0; r < 2; r++) reach[r] = row + 8 * r < tile.rows ? positions[tile.row + row + 8 * r] + 1 : 0;
  }
  // Chosen, never multiplied: what lies behind the context may be NaN.
  INLINE void hide(Scores& s, int t, int lane) {
    if ((t + 1) * KEYS - 1 <= least) return;
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
      const int key = t * KEYS + i / 4 * 8 + (lane & 3) * 2 + (i & 1);
      if (key >= reach[i >> 1 & 1]) s[i] = -INFINITY;
    }
  }
};

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
    compute<VisibleKeys>(shared, positions, out, row_stride, scale * LOG2_E, thread / GROUP, thread % GROUP);
  }
}
