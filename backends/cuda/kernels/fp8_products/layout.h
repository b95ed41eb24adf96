// Where things lie in shared memory: a ring of stages, each one block of K of a tile's rows (of each
// term) and of the weights; where warpgroups share a tile's blocks, sums to be added; barriers. Knows no
// numbers.
#pragma once
#include "../hopper/ptx.h"

constexpr int BLOCK = 128;      // of K under one scale: a row of a stage in bytes; and of a weight's columns
constexpr int PART = 64;        // rows of one product
constexpr int WARPGROUPS = 2;   // that multiply: each every other part, or where WAYS is 2 every other block
constexpr int ROWS = WARPGROUPS / WAYS * PARTS * PART;  // of a tile
constexpr int WEIGHTS = GATED ? 2 : 1;
constexpr int MULTIPLYING = 128 * WARPGROUPS, THREADS = MULTIPLYING + 128;
constexpr int HELD = COLUMNS / 2;                  // sums of a lane of one product
constexpr int SPANS = BLOCK % COLUMNS ? 2 : 1;     // blocks of a weight's columns that a tile's lie in, at most
static_assert(COLUMNS % 8 == 0 && COLUMNS != 176, "176 columns may lie in three blocks");
static_assert(PARTS == 1 || (!GATED && WAYS == 1), "two products of two parts do not fit the registers");

constexpr int PART_BYTES = PART * BLOCK, TERM_BYTES = ROWS * BLOCK, WEIGHT_BYTES = COLUMNS * BLOCK;
constexpr int WEIGHTS_AT = TERMS * TERM_BYTES;  // in a stage
constexpr int STAGE_BYTES = WEIGHTS_AT + WEIGHTS * WEIGHT_BYTES;
constexpr int SUMS = STAGES * STAGE_BYTES, SUMS_BYTES = WAYS == 2 ? 512 * WEIGHTS * HELD : 0;
// Of each stage two barriers. Then which tile comes, in two places that take turns, each with two barriers;
// then a count, and tickets.
constexpr int BARRIERS = SUMS + SUMS_BYTES, BARRIERS_BYTES = 16;
constexpr int TOLD = BARRIERS + BARRIERS_BYTES * STAGES, TOLD_BYTES = 32;
constexpr int COUNT = TOLD + 2 * TOLD_BYTES, TICKETS = COUNT + 4;
static_assert(COUNT + 16 == SHARED_BYTES, "the launch gives another size");

// A lane's two rows of each part, from its first on.
INLINE int row_of(int first, int part, int half) { return first + part * WARPGROUPS * PART + 8 * half; }

INLINE u32 stage_at(u32 shared, int stage) { return shared + stage * STAGE_BYTES; }
INLINE u32 full_barrier(u32 shared, int stage) { return shared + BARRIERS + stage * BARRIERS_BYTES; }
INLINE u32 empty_barrier(u32 shared, int stage) { return full_barrier(shared, stage) + 8; }
INLINE u32 told_place(u32 shared, int tile) { return shared + TOLD + tile % 2 * TOLD_BYTES; }
INLINE u32 told_barrier(u32 shared, int tile) { return told_place(shared, tile) + 16; }
INLINE u32 heard_barrier(u32 shared, int tile) { return told_place(shared, tile) + 24; }

// A place in the ring, and which time around it is.
struct Place {
  int stage = 0, parity = 0;
  INLINE void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
  INLINE Place after(int blocks) const {
    const int at = stage + blocks;
    return Place{at % STAGES, parity ^ (at / STAGES & 1)};
  }
};

// Where warpgroups share a tile's blocks, every other place of the ring is of the same one.
static_assert(WAYS == 1 || STAGES % 2 == 0, "else places change hands");
constexpr int WARPS_OF_STAGE = 4 * WARPGROUPS / WAYS;
INLINE int own_block(const Place& place, int warpgroup) { return WAYS == 2 && place.stage % 2 != warpgroup ? 1 : 0; }
