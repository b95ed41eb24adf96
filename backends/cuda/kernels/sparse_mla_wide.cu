// Absorbed MLA over selected cached positions for many heads and rows: 64 heads of one query row over a share
// of its keys by one CTA; the shares (splits) of a row are one cluster, summed through distributed shared
// memory. One launch, no workspace. The same parameters as sparse_mla.cu's.
//
// At 128 rows of 128 heads and 2,048 keys: 73 GFLOP (107 of a two-term query), 302 MB of bf16 rows, of
// which each is read once a block of heads: 604 MB out of L2. Bound by the products.
// Some warps gather cached rows, swizzled, into a ring of tiles of keys, which both products read as
// they lie. Four score a tile and turn scores into weights; eight add values, four to each half of the
// latent, while the next tile is scored. Heads are the M side of both products.
// Heads behind the last are computed as zeros and not written; rows behind *num_rows are left alone.
//
// Macros: FORMAT (0), HEADS (64), STAGES of the ring, PAGE (tokens), DENSE (positions 0 .. position instead
// of a selection), QUERY_PARTS (2: what bf16 leaves of the latent query is another operand), SHARED_BYTES.
#include "sparse_mla_wide/load.h"
#include "sparse_mla_wide/score.h"
#include "sparse_mla_wide/values.h"

constexpr float LOG2_E = 1.44269504089f;
// Registers of a thread that loads, scores, adds values: 65,536 for 4, 4 and 8 warps. ptxas leaves products
// all but 24: 128 sums of values; 32 scores and what is kept of the query.
constexpr int LOAD_REGISTERS = QUERY_PARTS == 2 ? 24 : 32, SCORE_REGISTERS = 192 - LOAD_REGISTERS, VALUE_REGISTERS = 160;

// Grid: (splits, blocks of heads, rows), clusters of (splits, 1, 1); 512 threads.
extern "C" __global__ void __launch_bounds__(512, 1) sm90_sparse_mla_wide(
    const float* __restrict__ query,                // [heads, rows, 512], absorbed
    const __nv_bfloat16* __restrict__ query_rope,   // [rows, heads, 64], any strides
    const uint8_t* __restrict__ cache,              // [pages, PAGE, ROW_BYTES]
    const int* __restrict__ selection,              // [rows, >= keys] positions, -1: none
    const int* __restrict__ positions,              // [rows]; of rows without a token negative
    const int* __restrict__ q_starts,               // [reqs + 1]
    const int* __restrict__ page_table,             // [reqs, pages of a request]
    const int* __restrict__ num_rows,               // [1]: real rows
    __nv_bfloat16* __restrict__ out,                // [heads, rows, 512]
    long long selection_stride, long long rope_row_stride, long long rope_head_stride, long long page_bytes,
    long long page_table_stride, int rows, int heads, int keys, int reqs, int splits, float scale) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const int row = blockIdx.z, rank = blockIdx.x, first_head = blockIdx.y * HEADS;
  if (row >= *num_rows) return;
  const u32 shared = shared_address(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // A selection is of distinct visible positions: it has no more of them than there are.
  const int count = min(positions[row] + 1, keys);
  const int tiles = (count + TILE - 1) / TILE;
  const int share = (tiles + splits - 1) / splits, first = min(rank * share, tiles);
  const int own = min(share, tiles - first);
  if (threadIdx.x == 0) init_ring(shared);
  __syncthreads();
  if (warp >= VALUE_WARPS + SCORE_WARPS) {
    const int request = request_of(q_starts, reqs, row, lane);  // takes more registers than remain
    give_registers<LOAD_REGISTERS>();
    const Keys all{selection + row * selection_stride, page_table + request * page_table_stride, cache, page_bytes, count};
    load_tiles(shared, all, first, own, warp - VALUE_WARPS - SCORE_WARPS, lane);
  } else if (warp >= VALUE_WARPS) {
    take_registers<SCORE_REGISTERS>();
    score_tiles(shared, own, splits, scale * LOG2_E, warp - VALUE_WARPS, lane);
  } else {
    take_registers<VALUE_REGISTERS>();
    const Query given{query, query_rope, rope_row_stride, rope_head_stride, heads, rows};
    bring_query(shared, given, row, first_head, threadIdx.x);
    const Result result{out, heads, rows, row, first_head};
    sum_values(shared, result, own, splits, rank, warp, lane);
  }
}
