// All tiles of a CTA: one warp loads, two warpgroups multiply and write what `Result` says (`write_tile`).
#pragma once
#include "load.h"
#include "multiply.h"

// Registers of a loading and a multiplying thread: 64,512 for 4 and 8 warps.
constexpr int LOAD_REGISTERS = 40, MULTIPLY_REGISTERS = 232;

template <int PRODUCTS, class Result>
INLINE void take_tile(const Place& place, u32 shared, const Tile& tile, const Sizes& sizes, const Scales& scales,
                      const Result& result, int warp, int lane) {
  const int warpgroup = warp / 4;
  const int first = tile.first_row + (WAYS == 2 ? 0 : warpgroup * PART) + warp % 4 * 16 + lane / 4;
  Sums<PRODUCTS> sums;
  multiply(sums, place, shared, tile, sizes, scales, first, warpgroup, lane);
  if (WAYS == 2) add_ways(sums, shared, warpgroup);
  if (WAYS == 1 || warpgroup == 0) write_tile(sums, result, tile, sizes, first, lane);
}

template <class Result>
INLINE void take_tiles(u32 shared, const Sizes& sizes, const Operands& operands, const Scales& scales, const Result& result,
                       const int* real_rows, const int* pair_of_slot, const int* expert_of_tile, u32* tickets) {
  const int warp = same_in_lanes(threadIdx.x / 32), lane = threadIdx.x % 32, rank = CLUSTER == 1 ? 0 : cluster_rank();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      init_barrier(full_barrier(shared, stage), 1);
      init_barrier(empty_barrier(shared, stage), CLUSTER * WARPS_OF_STAGE);
    }
    for (int tile = 0; tile < 2; tile++) {
      init_barrier(told_barrier(shared, tile), 1);
      init_barrier(heard_barrier(shared, tile), MULTIPLYING);
    }
    publish_barriers();
  }
  __syncwarp();
  const int row_tiles = count_row_tiles(shared, sizes, real_rows, expert_of_tile), real = min(*real_rows, sizes.rows);
  const int tiles = row_tiles * column_turns(sizes);
  if (CLUSTER == 1) __syncthreads();
  else cluster_barrier();
  Place place;
  int count = 0;
  if (warp >= MULTIPLYING / 32) {
    give_registers<LOAD_REGISTERS>();
    if (threadIdx.x == MULTIPLYING) {
      const Tickets taking{tickets, (int)gridDim.x / CLUSTER};
      for (int number = blockIdx.x / CLUSTER; number < tiles; count++) {
        const Tile tile = tile_of(number, row_tiles, sizes, real, expert_of_tile, pair_of_slot, rank);
        number = load_tile_blocks(place, shared, tile, sizes, rank, operands, taking, number, count);
      }
      end_tiles(shared, rank, taking, count);
    }
    __syncwarp();
  } else {
    take_registers<MULTIPLY_REGISTERS>();
    for (Tile tile = await_tile(shared, 0); tile.parts != NO_TILE; tile = await_tile(shared, ++count)) {
      const int parts = WAYS == 2 ? 1 : (tile.parts - warp / 4 + WARPGROUPS - 1) / WARPGROUPS;
      if (parts == 0) skip(place, shared, sizes.blocks, lane);
      else if (PARTS == 2 && parts == 1) take_tile<1>(place, shared, tile, sizes, scales, result, warp, lane);
      else take_tile<PARTS * WEIGHTS>(place, shared, tile, sizes, scales, result, warp, lane);
      place = place.after(sizes.blocks);
    }
  }
  // No CTA leaves while another may still copy or arrive into its memory.
  if (CLUSTER == 2) cluster_barrier();
}
