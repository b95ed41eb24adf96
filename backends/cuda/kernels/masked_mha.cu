// Attention in the expanded form (causal_mha.cu) to the selected keys of contexts that are longer than a
// selection: softmax(q k^T) v over all keys of the context, of which those that are not selected count
// for nothing, by a bit each.
//
// A pair of a query row and a key takes 640 operations a head, a selected one 2,176 in the absorbed form:
// so this is the faster way up to about four times the 2,048 keys of a selection. The bits of
// 128 rows and a tile of keys are 2 KB, which each head reads again, out of L2: the tile of keys and values
// has 80 KB. A lane loads its two words a tile ahead.
//
// A row with nothing selected gives zeros. Of rows without a token nothing is promised; rows behind the
// step's are not written. Macros: as of causal_mha.cu.
#include "causal_mha/attend.h"
#include "causal_mha/load.h"
#include "masked_mha/bits.h"

static_assert(KEYS == BIT_KEYS, "a lane's bits are those of a tile of keys");

// Of a lane's two rows: the keys whose bits are set.
struct SelectedKeys {
  struct Source {
    const u32* bits;  // [step's rows, words] (masked_mha/bits.h)
    int words;        // of a row
  };

  const u32* bits;
  int first[2];  // the lane's first word of each row; behind the tile's rows its last row's
  u32 next[2];   // of the tile that comes

  INLINE SelectedKeys(Source source, const QueryTile& tile, int row, int lane) : bits(source.bits) {
#pragma unroll
    for (int r = 0; r < 2; r++)
      first[r] = (tile.row + min(row + 8 * r, tile.rows - 1)) * source.words + (lane & 3);
    look_ahead(key_tiles(tile) - 1);
  }
  INLINE void look_ahead(int t) {
#pragma unroll
    for (int r = 0; r < 2; r++) next[r] = read_global_word(bits + first[r] + t * BIT_WORDS);
  }
  // Chosen, never multiplied: what lies behind the context may be NaN.
  INLINE void hide(Scores& s, int t, int) {
    const u32 selected[2] = {next[0], next[1]};
    if (t > 0) look_ahead(t - 1);
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++)
      if (!(selected[i >> 1 & 1] >> (i / 4 * 2 + (i & 1)) & 1)) s[i] = -INFINITY;
  }
};

// Grid: as many CTAs as the device runs at once; 384 threads.
extern "C" __global__ void __launch_bounds__(GROUP * (GROUPS + 1), 1) sm90_masked_mha(
    const __grid_constant__ TensorMap q_nope,     // [step's rows, heads, 128], boxes of 128, 1, 64
    const __grid_constant__ TensorMap q_rope,     // [step's rows, heads, 64], boxes of 128, 1, 64
    const __grid_constant__ TensorMap expanded,   // [context rows, heads, 256], boxes of KEYS, 1, 64
    const __grid_constant__ TensorMap rope_keys,  // [context rows, 1, 64], boxes of KEYS, 1, 64
    const u32* __restrict__ bits,                 // [step's rows, words]
    const int* __restrict__ tiles,                // causal_mha/tile_list.h
    unsigned* __restrict__ tickets,               // [1]: how many were drawn, 0 when it begins
    __nv_bfloat16* __restrict__ out,              // [step's rows, heads of all groups, 128]
    long long row_stride, int heads, float scale, int words) {
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
    compute<SelectedKeys>(shared, {bits, words}, out, row_stride, scale * LOG2_E, thread / GROUP, thread % GROUP);
  }
}
