// One thread that keeps the ring full: a block of K of a tile at a time, by the copy engine. Parts of x
// go to all CTAs of the cluster, half of them from each; parts without a row are not loaded.
#pragma once
#include "../hopper/tiles.h"
#include "tiles.h"

struct Operands {
  const TileMap *x, *weight, *up;
};

// Who takes which tile: cluster c the tiles c, c + step, …; or where DYNAMIC, behind its first, the next that
// nobody has, which the first CTA asks for and sends to the other.
struct Tickets {
  u32* taken;  // [2], zero: tiles behind the first `step`, and clusters that have ended
  int step;    // clusters
};

// The block of a tile by whose barrier the other CTA's ticket comes; it is read when the block's place is
// free again. The first CTA is less than a tile of more than STAGES + 1 blocks ahead, so that two places for
// tickets are enough.
constexpr int TELLING = 1;

// All blocks of the cluster's tile `number`, its `count`th. Returns the number of its next.
INLINE int load_tile_blocks(Place& place, u32 shared, const Tile& tile, const Sizes& sizes, int rank,
                            const Operands& from, const Tickets& tickets, int number, int count) {
  const int weight_row = tile.expert * sizes.columns + tile.column;
  const u32 ticket = shared + TICKETS + count % 2 * 4;
  int next = number + tickets.step;
  tell_tile(shared, count, tile);
#pragma unroll 1
  for (int block = 0; block < sizes.blocks; block++, place.next()) {
    const bool tells = DYNAMIC && CLUSTER == 2 && block == TELLING;
    const u32 full = full_barrier(shared, place.stage), stage = stage_at(shared, place.stage);
    wait_for(empty_barrier(shared, place.stage), place.parity ^ 1);
    if (DYNAMIC && CLUSTER == 2 && rank == 1 && block == TELLING + STAGES) next = load_word(ticket);
    arrive_expecting(full, TERMS * tile.parts * PART_BYTES + WEIGHTS * WEIGHT_BYTES + (tells ? 4 : 0));
    load_tile(stage + WEIGHTS_AT, from.weight, full, block * BLOCK, weight_row);
    if (GATED) load_tile(stage + WEIGHTS_AT + WEIGHT_BYTES, from.up, full, block * BLOCK, weight_row);
#pragma unroll 1
    for (int part = rank; part < tile.parts; part += CLUSTER)
#pragma unroll
      for (int term = 0; term < TERMS; term++) {
        const u32 to = stage + term * TERM_BYTES + part * PART_BYTES;
        const int row = term * sizes.rows + tile.first_row + part * PART;
        if (CLUSTER == 1) load_tile(to, from.x, full, block * BLOCK, row);
        else load_tile_for(to, from.x, full, block * BLOCK, row, (1 << CLUSTER) - 1);
      }
    if (DYNAMIC && rank == 0 && block == 0) next = atomicAdd(tickets.taken, 1u) + tickets.step;
    if (tells && rank == 0)
      for (int other = 0; other < CLUSTER; other++) send_word(ticket, full, other, next);
  }
  return next;
}

// Tells those who multiply that no tile follows its `count`. The last cluster to end leaves the tickets zero.
INLINE void end_tiles(u32 shared, int rank, const Tickets& tickets, int count) {
  tell_tile(shared, count, Tile{0, 0, NO_TILE, 0});
  if (!DYNAMIC || rank > 0) return;
  __threadfence();
  if (atomicAdd(tickets.taken + 1, 1u) == (u32)tickets.step - 1) tickets.taken[0] = tickets.taken[1] = 0;
}
