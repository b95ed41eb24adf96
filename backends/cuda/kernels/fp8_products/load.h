// One thread that keeps the ring full: a block of K of a tile at a time, by the copy engine. Parts of x
// go to all CTAs of the cluster, half of them from each; parts without a row are not loaded.
#pragma once
#include "../hopper/tiles.h"
#include "tiles.h"

INLINE void load_blocks(Place& place, u32 shared, const Tile& tile, const Sizes& sizes, int rank,
                        const TensorMap* x, const TensorMap* weight, const TensorMap* up) {
  const int weight_row = tile.expert * sizes.columns + tile.column_block * BLOCK;
  for (int block = 0; block < sizes.blocks; block++, place.next()) {
    const u32 full = full_barrier(shared, place.stage), stage = stage_at(shared, place.stage);
    wait_for(empty_barrier(shared, place.stage), place.parity ^ 1);
    if (block == 0) tell_tile(shared, place.stage, tile);
    arrive_expecting(full, TERMS * tile.parts * PART_BYTES + WEIGHTS * WEIGHT_BYTES);
    load_tile(stage + WEIGHTS_AT, weight, full, block * BLOCK, weight_row);
    if (GATED) load_tile(stage + WEIGHTS_AT + WEIGHT_BYTES, up, full, block * BLOCK, weight_row);
    for (int part = rank; part < tile.parts; part += CLUSTER)
#pragma unroll
      for (int term = 0; term < TERMS; term++) {
        const u32 to = stage + term * TERM_BYTES + part * PART_BYTES;
        const int row = term * sizes.rows + tile.first_row + part * PART;
        if (CLUSTER == 1) load_tile(to, x, full, block * BLOCK, row);
        else load_tile_for(to, x, full, block * BLOCK, row, (1 << CLUSTER) - 1);
      }
  }
}
