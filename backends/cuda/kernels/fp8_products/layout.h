// Where things lie in shared memory: a ring of stages, each one block of K of a tile's rows (of each
// term) and of the weights, then their barriers. Knows no numbers.
#pragma once
#include "../hopper/ptx.h"

constexpr int BLOCK = 128;      // of K under one scale: a row of a stage in bytes; columns of a weight's tile
constexpr int PART = 64;        // rows of one product
constexpr int WARPGROUPS = 2;   // that multiply, each every other part
constexpr int ROWS = WARPGROUPS * PARTS * PART;  // of a tile
constexpr int WEIGHTS = GATED ? 2 : 1;
constexpr int MULTIPLYING = 128 * WARPGROUPS, THREADS = MULTIPLYING + 128;

constexpr int PART_BYTES = PART * BLOCK, TERM_BYTES = ROWS * BLOCK, WEIGHT_BYTES = BLOCK * BLOCK;
constexpr int WEIGHTS_AT = TERMS * TERM_BYTES;  // in a stage
constexpr int STAGE_BYTES = WEIGHTS_AT + WEIGHTS * WEIGHT_BYTES;
// Of each stage two barriers, and which tile begins there; then a count, and tickets.
constexpr int BARRIERS = STAGES * STAGE_BYTES, BARRIERS_BYTES = 32, COUNT = BARRIERS + BARRIERS_BYTES * STAGES;
constexpr int TICKETS = COUNT + 4;  // two
static_assert(COUNT + 16 == SHARED_BYTES, "the launch gives another size");
static_assert(PARTS == 1 || !GATED, "two products of two parts do not fit the registers");

// A lane's two rows of each part, from its first on.
INLINE int row_of(int first, int part, int half) { return first + part * WARPGROUPS * PART + 8 * half; }

INLINE u32 stage_at(u32 shared, int stage) { return shared + stage * STAGE_BYTES; }
INLINE u32 full_barrier(u32 shared, int stage) { return shared + BARRIERS + stage * BARRIERS_BYTES; }
INLINE u32 empty_barrier(u32 shared, int stage) { return full_barrier(shared, stage) + 8; }
INLINE u32 tile_place(u32 shared, int stage) { return full_barrier(shared, stage) + 16; }

// A place in the ring, and which time around it is.
struct Place {
  int stage = 0, parity = 0;
  INLINE void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};
