// What a CTA keeps in shared memory, and who waits for whom. Computes nothing.
#pragma once
#include "hopper/operands.h"
#include "hopper/tensor_copy.h"
#include "hopper/tile_products.h"
#include "tile_list.h"

constexpr int NOPE = 128, ROPE = 64, VALUE = 128;  // of DeepSeek-V3.2's heads
constexpr int GROUP = 128, GROUPS = 2;             // threads of a warpgroup, those that compute
constexpr int GROUP_ROWS = TILE_ROWS / GROUPS;     // the M side of the products
constexpr int COMPUTE_THREADS = GROUP * GROUPS;
// Boxes are rows of 128 bytes (64 dims), so that a tile is 3 of them (nope, nope, rope), values 2.
constexpr int QUERY_BOX = TILE_ROWS * 128, KEY_BOX = KEYS * 128;
constexpr int QUERY_BYTES = 3 * QUERY_BOX, KEY_BYTES = 3 * KEY_BOX, VALUE_BYTES = 2 * KEY_BOX;

constexpr int QUERY = 0;                                 // [3][TILE_ROWS][64]; results take its place
constexpr int KEY_RING = QUERY + QUERY_BYTES;            // [STAGES][3][KEYS][64]
constexpr int VALUE_RING = KEY_RING + STAGES * KEY_BYTES;  // [STAGES][2][KEYS][64]
constexpr int ITEM = VALUE_RING + STAGES * VALUE_BYTES;  // what the query tile is
constexpr int BARRIERS = ITEM + 32;
constexpr int END = BARRIERS + 16 + STAGES * 32;
static_assert(END == SHARED_BYTES, "the lowering gives another size of shared memory");
static_assert(KEYS % 16 == 0 && KEY_BOX % 1024 == 0, "swizzled boxes begin at 1024-byte borders");

// Full: filled by the copy engine; empty: every computing thread has read it.
INLINE u32 query_full(u32 shared) { return shared + BARRIERS; }
INLINE u32 query_empty(u32 shared) { return shared + BARRIERS + 8; }
INLINE u32 key_full(u32 shared, int stage) { return shared + BARRIERS + 16 + stage * 32; }
INLINE u32 key_empty(u32 shared, int stage) { return key_full(shared, stage) + 8; }
INLINE u32 value_full(u32 shared, int stage) { return key_full(shared, stage) + 16; }
INLINE u32 value_empty(u32 shared, int stage) { return key_full(shared, stage) + 24; }

// By one thread, before a barrier of the CTA.
INLINE void init_barriers(u32 shared) {
  init_barrier(query_full(shared), 1), init_barrier(query_empty(shared), COMPUTE_THREADS);
  for (int s = 0; s < STAGES; s++) {
    init_barrier(key_full(shared, s), 1), init_barrier(key_empty(shared, s), COMPUTE_THREADS);
    init_barrier(value_full(shared, s), 1), init_barrier(value_empty(shared, s), COMPUTE_THREADS);
  }
  publish_barriers();
}

// Named barriers; 0 is __syncthreads. TURN + g is warpgroup g's turn at the matrix unit.
constexpr int ALL_COMPUTE = 1, OF_GROUP = 2, TURN = 4;

// A tile of one head. A few heads at a time, so many that their tiles are about one for each CTA: their
// keys and values stay in L2 while all their tiles are under way (those of 128 heads at once would be
// read from memory again for each tile). Of these heads the tiles that see most keys come first, as in
// the list. CTAs draw tickets, so that they end together: by turns, some would have half of their time.
struct Item {
  int head;
  QueryTile tile;
};
struct Work {
  const int* list;
  int tiles, heads, count, heads_at_once;
  INLINE Work(const int* of_step, int of_layer)
      : list(of_step), tiles(of_step[0]), heads(of_layer), count(tiles * heads),
        heads_at_once(min(heads, max(1, ((int)gridDim.x + tiles / 2) / max(1, tiles)))) {}
  INLINE Item item(int ticket) const {
    const int together = tiles * heads_at_once, first = ticket / together * heads_at_once;
    const int here = min(heads_at_once, heads - first), rest = ticket % together;
    const int* entry = list + (1 + rest / here) * ENTRY;
    return {first + rest % here, {entry[0], entry[1], entry[2], entry[3], entry[4], entry[5]}};
  }
};
constexpr int NO_HEAD = -1;  // of what follows the last item

// An item goes with the barrier of its queries, in shared memory.
INLINE void tell(u32 shared, const Item& item) {
  const QueryTile& t = item.tile;
  store4(shared + ITEM, t.row, t.rows, t.context, t.length);
  store4(shared + ITEM + 16, t.reach, t.least, item.head, 0);
}
INLINE Item told(u32 shared) {
  const uint4 x = load4(shared + ITEM), y = load4(shared + ITEM + 16);
  return {(int)y.z, {(int)x.x, (int)x.y, (int)x.z, (int)x.w, (int)y.x, (int)y.y}};
}
INLINE int key_tiles(const QueryTile& tile) { return (tile.reach + KEYS - 1) / KEYS; }
