// Absorbed MLA over selected cached positions, for decode and verify: scores, softmax and values of
// HEADS heads of one query row over a share of its keys by one CTA; the shares (splits) of a row are
// one cluster, summed through distributed shared memory. One launch, no workspace.
//
// Four warps load cached rows as they are stored into a ring; eight compute. Two tiles of 64 keys at
// a time: each warpgroup scores one of them, then both add both tiles' values, each warpgroup to half
// of the latent. Heads are the N side of the products, so that 16 of them are not padded to 64.
// Heads behind the last are computed as zeros and not written; rows behind *num_rows are left alone.
//
// Macros: FORMAT (hopper/latent_rows.h), HEADS (a CTA's: 16, 32 or 64), STAGES of the ring, PAGE (tokens),
// DENSE (positions 0 .. position instead of a selection), QUERY_PARTS (2: what bf16 leaves of the
// latent query is another operand), SHARED_BYTES.
#include "sparse_mla/combine.h"
#include "sparse_mla/load_rows.h"
#include "sparse_mla/query.h"

constexpr float LOG2_E = 1.44269504089f;
// Registers of a loading and a computing thread: 65,536 for 4 and 8 warps.
constexpr int LOAD_REGISTERS = HEADS == 64 ? 24 : 40, COMPUTE_REGISTERS = HEADS == 64 ? 240 : 208;

INLINE void compute(u32 shared, const Query& query, const Result& result, int pairs, int splits, int rank,
                    float scale, int warp, int lane) {
  stage_query(shared, query, result.row, result.first_head, warp * 32 + lane);
  named_barrier(ALL_COMPUTE, COMPUTE_THREADS);
  Output o;
  Scores s;
  Sums sums;
#pragma unroll
  for (int i = 0; i < HEADS / 4; i++) sums[i] = 0.f;
#pragma unroll
  for (int m = 0; m < DIM_TILES; m++)
#pragma unroll
    for (int i = 0; i < HEADS / 2; i++) o[m][i] = 0.f;
  for (int pair = 0; pair < pairs; pair++) {
    const int own = 2 * pair + warp / 4;
    wait_full(shared, own);
    score(s, shared, own, warp, lane);
    weigh(s, o, sums, scale, shared, own, warp, lane);
    wait_full(shared, own ^ 1);
    add_values(o, shared, 2 * pair, warp, lane);
  }
  sum_weights(sums, shared, warp, lane);
  if (splits == 1) write_alone(o, result, shared, warp, lane);
  else write_over_cluster(o, result, shared, splits, rank, warp, lane);
}

// Grid: (splits, blocks of heads, rows), clusters of (splits, 1, 1); 384 threads.
extern "C" __global__ void __launch_bounds__(32 * (COMPUTE_WARPS + LOAD_WARPS), 1) sm90_sparse_mla(
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
  const int row = blockIdx.z, rank = blockIdx.x;
  if (row >= *num_rows) return;
  const u32 shared = shared_address(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // A selection is of distinct visible positions: it has no more of them than there are.
  const int count = min(positions[row] + 1, keys);
  const int tiles = (count + 2 * TILE - 1) / (2 * TILE) * 2;  // whole pairs; those of padding: none
  const int share = (tiles / 2 + splits - 1) / splits * 2, first = min(rank * share, tiles);
  const int own = min(share, tiles - first);
  if (threadIdx.x == 0) init_ring(shared);
  __syncthreads();
  if (warp >= COMPUTE_WARPS) {
    give_registers<LOAD_REGISTERS>();
    const int request = request_of(q_starts, reqs, row, lane);
    const Keys all{selection + row * selection_stride, page_table + request * page_table_stride, cache, page_bytes, count};
    load_tiles(shared, all, first, own, warp - COMPUTE_WARPS, lane);
  } else {
    take_registers<COMPUTE_REGISTERS>();
    const Query given{query, query_rope, rope_row_stride, rope_head_stride, heads, rows};
    const Result result{out, heads, rows, row, (int)blockIdx.y * HEADS};
    compute(shared, given, result, own / 2, splits, rank, scale * (LOG2_E / LIFT), warp, lane);
  }
}
