// The loading warps: cached rows at the selected positions, by one bulk copy a row, into the ring.
#pragma once
#include "ring.h"
#include "row_inputs.h"

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
