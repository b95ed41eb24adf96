// Which tile a cluster takes when: a tile is ROWS rows and the columns of the cluster's CTAs. Tiles of
// rows take turns over the same columns, so that these weights come from the cache. Loads nothing.
#pragma once
#include "layout.h"

struct Sizes {
  int rows;           // of a plane of x; slots where GROUPED
  int columns;        // of a weight
  int blocks;         // of K
  int row_tiles;      // where GROUPED: as many as there may be
  int turns;          // tiles of rows that take turns
};

constexpr int NO_TILE = -1;

struct Tile {
  int expert, first_row, parts;  // parts: of PART rows, that hold any row; NO_TILE behind the last tile
  int column;                    // this CTA's first
};

// Tiles of rows that hold any: those of real rows, or those that an expert has.
INLINE int count_row_tiles(u32 shared, const Sizes& sizes, const int* real_rows, const int* expert_of_tile) {
  if (!GROUPED) return (min(*real_rows, sizes.rows) + ROWS - 1) / ROWS;
  if (threadIdx.x == 0) store_word(shared + COUNT, 0);
  __syncthreads();
  for (int i = threadIdx.x; i < sizes.row_tiles; i += THREADS)
    if (expert_of_tile[i] >= 0 && (i + 1 == sizes.row_tiles || expert_of_tile[i + 1] < 0)) store_word(shared + COUNT, i + 1);
  __syncthreads();
  return load_word(shared + COUNT);
}

INLINE int column_turns(const Sizes& sizes) {
  return ((sizes.columns + COLUMNS - 1) / COLUMNS + CLUSTER - 1) / CLUSTER;
}

INLINE Tile tile_of(int number, int row_tiles, const Sizes& sizes, int real, const int* expert_of_tile,
                    const int* pair_of_slot, int rank) {
  const int together = sizes.turns * column_turns(sizes), first = number / together * sizes.turns;
  const int turns = min(row_tiles - first, sizes.turns), within = number % together;
  const int row_tile = first + within % turns;
  Tile tile{0, row_tile * ROWS, 0, (within / turns * CLUSTER + rank) * COLUMNS};
  if (GROUPED) {
    tile.expert = expert_of_tile[row_tile];
    // pairs of an expert lie from the front of its slots on
    for (int part = 0; part < ROWS / PART; part++) tile.parts += pair_of_slot[tile.first_row + part * PART] >= 0;
  } else {
    tile.parts = min((real - tile.first_row + PART - 1) / PART, ROWS / PART);
  }
  return tile;
}

// Which rows a tile has is asked of memory once, by the loading thread, well ahead of those who multiply: of
// the `count`th tile once all have heard of the last but one.
INLINE void tell_tile(u32 shared, int count, const Tile& tile) {
  wait_for(heard_barrier(shared, count), count / 2 & 1 ^ 1);
  store4(told_place(shared, count), tile.expert, tile.first_row, tile.parts, tile.column);
  arrive(told_barrier(shared, count));
}

// The `count`th tile. Each lane says for itself that it has heard.
INLINE Tile await_tile(u32 shared, int count) {
  wait_for(told_barrier(shared, count), count / 2 & 1);
  const u32 told = told_place(shared, count);
  const Tile tile{(int)load_word(told), (int)load_word(told + 4), (int)load_word(told + 8), (int)load_word(told + 12)};
  arrive(heard_barrier(shared, count));
  return tile;
}
