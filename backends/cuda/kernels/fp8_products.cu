// x W^T of fp8 with block scales, of many rows: dense, or of experts over slots sorted by expert; plain
// or gated (silu(gate x) * up x). x comes in one term or two (gpu_kernels/fp8_terms.py).
//
// Two numbers first. A tile of 128 x 128 takes 512 cycles of the matrix units for 128 of K (8,192
// operations a cycle) and 32 KiB of operands: 64 bytes a cycle, the most that a unit's port to the L2
// cache takes. So operands are shared: a cluster of 2 takes one tile of rows and neighbouring columns, x
// is loaded once for both (48 bytes a cycle); tiles of 256 x 128, and gated ones of 128 x (128 + 128),
// take 1,024 cycles for 48 KiB (32 to 40 with the cluster). Few rows read weights, which all units must ask for:
// tiles are as narrow as gives each unit one, or two.
//
// Tile plan. One warp loads, a block of 128 of K at a time, into a ring of STAGES; two warpgroups
// multiply. A warpgroup takes 64 rows x COLUMNS at a time into COLUMNS / 2 registers, which it then scales
// and adds to its sums while the other's products run: the sums of 1 part (PARTS 1), of 2, or of gate
// and up (GATED). Of tiles of 64 rows (WAYS 2) each warpgroup takes every other block, and the second hands
// its sums to the first. CTAs stay and take tile after tile; the next tile's blocks are loaded while this one is
// written. A part of 64 rows without a row is neither loaded nor multiplied. No atomics: each number is
// summed in the order of K, where WAYS is 2 that of even blocks and then of odd ones.
//
// Macros: TERMS (1, 2), PARTS, WAYS, COLUMNS (of a tile, of each weight), GATED, GROUPED, WIDE (results in f32), STAGES,
// CLUSTER (1, 2), DYNAMIC (clusters take the next tile that nobody has; of more than STAGES + 1 blocks of K), POWER_OF_TWO (scales
// of what gated experts write), SHARED_BYTES.
#include "fp8_products/take_tiles.h"
#include "fp8_products/write.h"

// Grid: clusters of (CLUSTER, 1, 1), at most as many as run at once; 384 threads.
extern "C" __global__ void __launch_bounds__(THREADS, 1) sm90_fp8_products(
    const __grid_constant__ TileMap x,       // boxes [64, 128] of [TERMS * rows, K] fp8
    const __grid_constant__ TileMap weight,  // boxes [COLUMNS, 128] of [experts * columns, K] fp8
    const __grid_constant__ TileMap up,      // where GATED the other weight, else as weight
    const float* __restrict__ x_scale,         // of a row and block
    const float* __restrict__ weight_scale,    // [experts, blocks of columns, blocks of K]
    const float* __restrict__ up_scale,
    uint8_t* __restrict__ out, float* __restrict__ out_scale,  // write.h
    const int* __restrict__ real_rows,         // [1]: where not GROUPED, rows behind it are left alone
    const int* __restrict__ pair_of_slot,      // GROUPED: -1 for a slot without one
    const int* __restrict__ expert_of_tile,    // GROUPED: of each ROWS slots; -1 behind the last
    long long out_stride, int scale_row, int scale_block, int rows, int columns, int blocks,
    int most_row_tiles, int turns, u32* __restrict__ tickets  // [2], zero, where DYNAMIC
) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const Sizes sizes{rows, columns, blocks, most_row_tiles, turns};
  const Operands operands{&x, &weight, &up};
  const Scales scales{x_scale, weight_scale, up_scale, scale_row, scale_block};
  const Result result{out, out_scale, out_stride, pair_of_slot, min(*real_rows, rows)};
  take_tiles(shared_address(memory), sizes, operands, scales, result, real_rows, pair_of_slot, expert_of_tile, tickets);
}
