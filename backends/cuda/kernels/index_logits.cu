// The indexer's logits over paged keys: scale * key scale * sum over 64 heads of weight * relu(q . k),
// 128 dims, -inf behind a row's position. Keys come from the cache in their stored bytes: e4m3 with a scale
// each, or bf16 without.
//
// Two numbers first. A row and a position take 16,384 operations (13 ps of an H200 in fp8, 21 in bf16), a
// position 132 bytes (29 ps), in bf16 256, for all rows of its request together: decode waits for memory up
// to two rows a request, prefill for the matrix units, whose 64 x N sums a thread weighs meanwhile (two
// instructions a head: of fp8 a third of the units' time).
//
// Plan. A tile is up to ROWS rows of one request; index_tiles.cu lists them and cuts all their pages into
// equal parts, one a CTA. One warp loads: queries of a tile, then its pages, 64 keys with their scales by
// one box, in bf16 their halves by two, into a ring. Warpgroups score: ROW_GROUPS of them take ROWS_EACH
// rows each of the same page, KEY_GROUPS of such take turns over the pages. One warpgroup's sums are weighed
// while the others' products run. No atomics: a logit is one lane's sum, in an order that no size changes.
//
// Macros: ELEMENT_BYTES (of keys and queries: 1 e4m3, 2 bf16), ROWS_EACH (1, 2, 4), ROW_GROUPS, KEY_GROUPS,
// TILES (of queries at a time), STAGES (pages under way), LOAD_REGISTERS, SCORE_REGISTERS (of a thread),
// SHARED_BYTES.
#include "index_logits/load.h"
#include "index_logits/score.h"

// Grid: as many as index_tiles.cu made parts; 128 threads a scoring warpgroup, and 128.
extern "C" __global__ void __launch_bounds__(THREADS, 1) sm90_index_logits(
    const __grid_constant__ TileMap keys,     // boxes [1, 66, 128] of [pages, 66, 128] bytes; [1, 64, 64] of bf16
    const __grid_constant__ TileMap queries,  // boxes of [64 * ROWS_EACH, 128 bytes] of [64 * rows, 128]
    const float* __restrict__ query_scales,   // of a row and head, in fp8
    const float* __restrict__ weights,        // of a row and head
    const int* __restrict__ positions,        // [rows of the step]
    const int* __restrict__ page_table,       // [reqs, pages of one]
    const RowTile* __restrict__ tiles, const Start* __restrict__ starts,  // of rows first_row .. + rows
    const int* __restrict__ real_rows,        // [1]: rows behind it are left alone
    float* __restrict__ out,                  // [rows, columns], at a border of 16 bytes
    long long query_scale_stride, long long weights_stride, long long page_table_stride, long long out_stride,
    int first_row, int rows, int columns, float scale) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const u32 shared = shared_address(memory);
  const int warp = same_in_lanes(threadIdx.x / 32), lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int place = 0; place < STAGES + TILES * ROW_GROUPS; place++) {
      init_barrier(full_barrier(shared, place), 1);
      init_barrier(empty_barrier(shared, place), 128 * (place < STAGES ? ROW_GROUPS : KEY_GROUPS));
    }
    publish_barriers();
  }
  const Start from = starts[blockIdx.x], to = starts[blockIdx.x + 1];
  __syncthreads();
  if (warp >= SCORING / 32) {
    give_registers<LOAD_REGISTERS>();
    if (warp == SCORING / 32) {
      load_pages(shared, keys, queries, tiles, from, to, page_table, page_table_stride, lane);
    } else {
      const int high = min(first_row + rows, *real_rows);
      fill_behind(positions, out, out_stride, first_row, high, columns, threadIdx.x - SCORING - 32, 96);
    }
  } else {
    take_registers<SCORE_REGISTERS>();
    const Scores scores{weights, query_scales, weights_stride, query_scale_stride, positions,
                        out,     out_stride,   first_row,      scale};
    score_tiles(shared, scores, tiles, from, to, warp, lane);
  }
}
