// Where things lie in shared memory: tiles of queries, a ring of pages, their barriers. Knows no numbers.
#pragma once
#include "../hopper/ptx.h"
#include "work_list.h"

constexpr bool IS_FP8 = ELEMENT_BYTES == 1;  // e4m3 with scales, else bf16

constexpr int HEADS = 64, DIM = 128;
constexpr int ROWS = ROWS_EACH * ROW_GROUPS;  // of a tile
constexpr int WARPGROUPS = ROW_GROUPS * KEY_GROUPS, SCORING = 128 * WARPGROUPS, THREADS = SCORING + 128;
constexpr int COLUMNS = ROWS_EACH * HEADS;    // of one product

// Boxes have rows of 128 bytes: a key or a head of a query is one in fp8, in bf16 its halves lie in two boxes.
constexpr int BOX_WIDTH = 128, BOX_DIMS = BOX_WIDTH / ELEMENT_BYTES, BOXES = DIM / BOX_DIMS;
constexpr int QUERY_BOX = COLUMNS * BOX_WIDTH;  // of a row group
constexpr int QUERY_BYTES = BOXES * QUERY_BOX, TILE_BYTES = ROW_GROUPS * QUERY_BYTES;
// Behind a page's 64 fp8 keys lie their f32 scales: 2 rows more.
constexpr int PAGE_BOX = (PAGE + (IS_FP8 ? 2 : 0)) * BOX_WIDTH, PAGE_BYTES = BOXES * PAGE_BOX;
constexpr int STAGE_BYTES = (PAGE_BYTES + 1023) / 1024 * 1024;  // boxes begin at borders of the swizzle

constexpr int STAGES_AT = TILES * TILE_BYTES, BARRIERS = STAGES_AT + STAGES * STAGE_BYTES;
static_assert(BARRIERS + 16 * (STAGES + TILES * ROW_GROUPS) == SHARED_BYTES, "the launch gives another size");
static_assert(STAGES % KEY_GROUPS == 0, "a place of the ring is always one key group's");
static_assert(ROWS_EACH == 1 || ROWS_EACH == 2 || ROWS_EACH == 4, "no such product");
static_assert(ELEMENT_BYTES == 1 || ELEMENT_BYTES == 2, "no such keys");

INLINE u32 queries_at(u32 shared, int tile, int row_group) {
  return shared + tile * TILE_BYTES + row_group * QUERY_BYTES;
}
INLINE u32 stage_at(u32 shared, int stage) { return shared + STAGES_AT + stage * STAGE_BYTES; }
// Of the pages' places, then of each row group's queries in the places of tiles.
INLINE u32 full_barrier(u32 shared, int place) { return shared + BARRIERS + 16 * place; }
INLINE u32 empty_barrier(u32 shared, int place) { return full_barrier(shared, place) + 8; }
INLINE int queries_place(int tile, int row_group) { return STAGES + tile * ROW_GROUPS + row_group; }

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
