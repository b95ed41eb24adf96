// The queries of attention and of its indexer, x W^T of joined weights, turned, the indexer's rotated and
// quantised where its keys are: what fp8_products.cu multiplies, and what else would stand behind it in a
// launch that reads and writes all of it again (64 KB a row of V3.2).
//
// Macros: of fp8_products.cu, COLUMNS 128; HEADS, WIDTH, OFFSET, DIM (what turns of attention's, by neighbours),
// INDEX_OFFSET, INDEX_DIM (of the indexer's, by halves), QUANTISED.
#include "fp8_products/take_tiles.h"
#include "fp8_products/write_queries.h"

// Grid: clusters of (CLUSTER, 1, 1), at most as many as run at once; 384 threads.
extern "C" __global__ void __launch_bounds__(THREADS, 1) sm90_fp8_queries(
    const __grid_constant__ TileMap x,       // boxes [64, 128] of [TERMS * rows, K] fp8
    const __grid_constant__ TileMap weight,  // boxes [128, 128] of [HEADS * WIDTH + 128 * the indexer's heads, K] fp8
    const float* __restrict__ x_scale,       // of a row and block
    const float* __restrict__ weight_scale,  // [blocks of columns, blocks of K]
    uint8_t* __restrict__ q, const float* __restrict__ table, uint8_t* __restrict__ index, float* __restrict__ index_scale,
    const float* __restrict__ index_table,   // write_queries.h
    const int* __restrict__ real_rows,       // [1]: rows behind it are left alone
    long long q_row, long long q_head, long long index_row, long long index_head, long long index_scale_row,
    long long index_scale_head, int scale_row, int scale_block, int rows, int columns, int blocks, int turns,
    u32* __restrict__ tickets  // [2], zero, where DYNAMIC
) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const Sizes sizes{rows, columns, blocks, 0, turns};
  const Operands operands{&x, &weight, &weight};
  const Scales scales{x_scale, weight_scale, weight_scale, scale_row, scale_block};
  const Queries to{q, q_row, q_head, table, index, index_row, index_head, index_scale, index_scale_row,
                   index_scale_head, index_table, min(*real_rows, rows)};
  take_tiles(shared_address(memory), sizes, operands, scales, to, real_rows, real_rows, real_rows, tickets);
}
