// Where things lie in shared memory: two tiles of queries, a ring of pages, their barriers. Knows no numbers.
#pragma once
#include "../hopper/ptx.h"
#include "work_list.h"

constexpr int HEADS = 64, DIM = 128;
constexpr int ROWS = ROWS_EACH * ROW_GROUPS;  // of a tile
constexpr int WARPGROUPS = ROW_GROUPS * KEY_GROUPS, SCORING = 128 * WARPGROUPS, THREADS = SCORING + 128;
constexpr int COLUMNS = ROWS_EACH * HEADS;    // of one product

constexpr int QUERY_BYTES = HEADS * DIM;      // of a row
constexpr int TILE_BYTES = ROWS * QUERY_BYTES;
// A page lies in memory as 64 keys and then 64 f32 scales: 66 rows of 128 bytes, which one box copies.
constexpr int PAGE_ROWS = PAGE + 2, PAGE_BYTES = PAGE_ROWS * DIM;
constexpr int STAGE_BYTES = (PAGE_BYTES + 1023) / 1024 * 1024;  // boxes begin at borders of the swizzle

constexpr int STAGES_AT = 2 * TILE_BYTES, BARRIERS = STAGES_AT + STAGES * STAGE_BYTES;
static_assert(BARRIERS + 16 * (STAGES + 2) == SHARED_BYTES, "the launch gives another size");
static_assert(STAGES % KEY_GROUPS == 0, "a place of the ring is always one key group's");
static_assert(ROWS_EACH == 1 || ROWS_EACH == 2 || ROWS_EACH == 4, "no such product");

INLINE u32 tile_at(u32 shared, int tile) { return shared + tile * TILE_BYTES; }
INLINE u32 stage_at(u32 shared, int stage) { return shared + STAGES_AT + stage * STAGE_BYTES; }
// Of the pages' places, then of the two tiles'.
INLINE u32 full_barrier(u32 shared, int place) { return shared + BARRIERS + 16 * place; }
INLINE u32 empty_barrier(u32 shared, int place) { return full_barrier(shared, place) + 8; }

// A place among COUNT, and which time around it is.
template <int COUNT> struct Place {
  int at = 0, parity = 0;
  INLINE void next() {
    if (++at == COUNT) at = 0, parity ^= 1;
  }
};

// The pages that a CTA takes of a tile: from `begin` to `end`.
struct Span {
  int begin, end;
};
INLINE Span span_of(int number, const RowTile& tile, const Start& from, const Start& to) {
  return Span{number == from.tile ? from.page : 0, number == to.tile ? to.page : tile.pages};
}
// Tiles behind this one are no longer this CTA's.
INLINE int end_of(const Start& to) { return to.tile + (to.page > 0); }
