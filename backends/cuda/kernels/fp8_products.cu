// x W^T of fp8 with block scales, of many rows: dense, or of experts over slots sorted by expert; plain
// or gated (silu(gate x) * up x). x comes in one term or two (gpu_kernels/fp8_terms.py).
//
// Two numbers first. A tile of 128 x 128 takes 512 cycles of the matrix units for 128 of K (8,192
// operations a cycle) and 32 KiB of operands: 64 bytes a cycle, the most that a unit's port to the L2
// cache takes. So operands are shared: a cluster of 2 takes one tile of rows and neighbouring columns, x
// is loaded once for both (48 bytes a cycle); tiles of 256 x 128, and gated ones of 128 x (128 + 128),
// take 1,024 cycles for 48 KiB (32 to 40 with the cluster).
//
// Tile plan. One warp loads, a block of 128 of K at a time, into a ring of STAGES; two warpgroups
// multiply. A warpgroup takes 64 rows x 128 columns at a time into 64 registers, which it then scales
// and adds to its sums while the other's products run: the sums of 1 part (PARTS 1), of 2, or of gate
// and up (GATED). CTAs stay and take tile after tile; the next tile's blocks are loaded while this one is
// written. A part of 64 rows without a row is neither loaded nor multiplied. No atomics: each number is
// summed by one thread in the order of K.
//
// Macros: TERMS (1, 2), PARTS, GATED, GROUPED, STAGES, CLUSTER (1, 2), DYNAMIC (clusters take the next tile
// that nobody has; of more than STAGES + 1 blocks of K), POWER_OF_TWO (scales of what gated experts write), SHARED_BYTES.
#include "fp8_products/load.h"
#include "fp8_products/write.h"

// Registers of a loading and a multiplying thread: 64,512 for 4 and 8 warps.
constexpr int LOAD_REGISTERS = 40, MULTIPLY_REGISTERS = 232;

template <int PRODUCTS>
INLINE void take_tile(Place& place, u32 shared, const Tile& tile, const Sizes& sizes, const Scales& scales,
                      const Result& result, int warp, int lane) {
  const int warpgroup = warp / 4, first = tile.first_row + warpgroup * PART + warp % 4 * 16 + lane / 4;
  Marks marks;
  const int column_blocks = (sizes.columns + BLOCK - 1) / BLOCK;
  marks.weight = (tile.expert * column_blocks + min(tile.column_block, column_blocks - 1)) * sizes.blocks;
#pragma unroll
  for (int part = 0; part < PARTS; part++)
#pragma unroll
    for (int half = 0; half < 2; half++)  // rows behind all are multiplied, but written nowhere
      marks.row[part][half] = min(row_of(first, part, half), sizes.rows - 1) * scales.of_row;
  Sums<PRODUCTS> sums;
  multiply<PRODUCTS>(sums, place, shared, scales, marks, sizes.blocks, warpgroup, lane);
  write_tile<PRODUCTS>(sums, result, tile, sizes, first, lane);
}

// Grid: clusters of (CLUSTER, 1, 1), at most as many as run at once; 384 threads.
extern "C" __global__ void __launch_bounds__(THREADS, 1) sm90_fp8_products(
    const __grid_constant__ TileMap x,       // boxes [64, 128] of [TERMS * rows, K] fp8
    const __grid_constant__ TileMap weight,  // boxes [128, 128] of [experts * columns, K] fp8
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
  const u32 shared = shared_address(memory);
  const int warp = same_in_lanes(threadIdx.x / 32), lane = threadIdx.x % 32, rank = CLUSTER == 1 ? 0 : cluster_rank();
  const Sizes sizes{rows, columns, blocks, most_row_tiles, turns};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      init_barrier(full_barrier(shared, stage), 1);
      init_barrier(empty_barrier(shared, stage), CLUSTER * MULTIPLYING);
    }
    publish_barriers();
  }
  __syncwarp();
  const int row_tiles = count_row_tiles(shared, sizes, real_rows, expert_of_tile), real = min(*real_rows, rows);
  const int tiles = row_tiles * column_turns(sizes);
  if (CLUSTER == 1) __syncthreads();
  else cluster_barrier();
  Place place;
  if (warp >= MULTIPLYING / 32) {
    give_registers<LOAD_REGISTERS>();
    if (threadIdx.x == MULTIPLYING) {
      const Operands operands{&x, &weight, &up};
      const Tickets taking{tickets, (int)gridDim.x / CLUSTER};
      int number = blockIdx.x / CLUSTER;
      for (int count = 0; number < tiles; count++) {
        const Tile tile = tile_of(number, row_tiles, sizes, real, expert_of_tile, pair_of_slot, rank);
        number = load_tile_blocks(place, shared, tile, sizes, rank, operands, taking, number, count);
      }
      end_tiles(place, shared, rank, taking);
    }
    __syncwarp();
  } else {
    take_registers<MULTIPLY_REGISTERS>();
    const Result result{out, out_scale, out_stride, pair_of_slot, real};
    const Scales scales{x_scale, weight_scale, up_scale, scale_row, scale_block};
    for (Tile tile = await_tile(shared, place); tile.parts != NO_TILE; tile = await_tile(shared, place)) {
      const int parts = (tile.parts - warp / 4 + WARPGROUPS - 1) / WARPGROUPS;
      if (parts == 0) skip(place, shared, blocks);
      else if (PARTS == 2 && parts == 1) take_tile<1>(place, shared, tile, sizes, scales, result, warp, lane);
      else take_tile<PARTS * WEIGHTS>(place, shared, tile, sizes, scales, result, warp, lane);
    }
  }
  // No CTA leaves while another may still copy or arrive into its memory.
  if (CLUSTER == 2) cluster_barrier();
}
