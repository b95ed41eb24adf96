// The loading warps: cached rows at the selected positions, by one bulk copy a row, into the ring.
#pragma once
#include "ring.h"

// The keys of one query row: `count` places of its selection (or positions 0 .. count - 1), its
// request's pages, and the cache.
struct Keys {
  const int* selection;
  const int* pages;
  const uint8_t* cache;
  long long page_bytes;
  int count;

  // The position at a place of the selection, -1 where there is none.
  INLINE int position(int place) const {
    if (place >= count) return -1;
    if constexpr (DENSE) return place;
    else return selection[place];
  }
  INLINE int page(int position) const { return position < 0 ? 0 : pages[position / PAGE]; }
};

// Tiles first .. first + tiles - 1; each warp takes 16 keys of each, a lane a key. Positions are
// read two tiles ahead, page numbers one. A key that is not there leaves zeros and a mask of -inf:
// its row in the cache, whatever that holds, is not read.
INLINE void load_tiles(u32 shared, const Keys& keys, int first, int tiles, int warp, int lane) {
  const int key = warp * 16 + (lane & 15);
  const bool has_key = lane < 16;
  const int place = first * TILE + key;
  int next = keys.position(place), next_page = keys.page(next);
  int after = keys.position(place + TILE);
  for (int t = 0; t < tiles; t++) {
    const int position = next, page = next_page;
    next = after;
    next_page = keys.page(next);
    after = keys.position(place + (t + 2) * TILE);
    wait_empty(shared, t);
    const bool is_there = position >= 0;
    const u32 to = stage_of(shared, t) + key * PITCH;
    if (has_key) {
      store(mask_of(shared, t) + key * 4, is_there ? 0.f : -INFINITY);
      if (!is_there)
        for (int i = 0; i < ROW_BYTES; i += 16) store4(to + i, 0, 0, 0, 0);
    }
    fence_async();  // this lane's zeros come before the copy that takes their place later
    const u32 barrier = full_barrier(shared, t % STAGES);
    if (has_key && is_there) {
      const uint8_t* from = keys.cache + page * keys.page_bytes + position % PAGE * ROW_BYTES;
      arrive_expecting(barrier, ROW_BYTES);
      copy_bulk(to, from, ROW_BYTES, barrier);
    } else {
      arrive(barrier);
    }
  }
}
