// The loading warps: cached rows at the selected positions, 16 bytes a thread, swizzled into the ring.
#pragma once
#include "hopper/operands.h"
#include "hopper/row_copy.h"
#include "query.h"

// Tiles first .. first + tiles - 1; each warp takes 16 keys of each. Lanes read a key's position a tile
// ahead, and its page while they wait for room; eight of them copy 128 bytes of a key at a time. A key that
// is not there leaves zeros and no bit: its row in the cache, whatever that holds, is not read.
INLINE void load_tiles(u32 shared, const Keys& keys, int first, int tiles, int warp, int lane) {
  const int place = first * TILE + warp * 16 + (lane & 15);
  int next = keys.position(place);
#pragma unroll 1
  for (int t = 0; t < tiles; t++) {
    const int position = next;
    next = keys.position(place + (t + 1) * TILE);
    const u32 there = __ballot_sync(EVERY_LANE, position >= 0);
    const int slot = position < 0 ? -1 : keys.page(position) * PAGE + position % PAGE;
    if (t == STAGES - 1) wait_last_stage(shared);
    wait_empty(shared, t);
    if (lane == 0) store_word(there_of(shared, t) + warp * 4, there & 0xffff);
    const u32 stage = stage_of(shared, t);
#pragma unroll
    for (int four = 0; four < 4; four++) {
      const int own = four * 4 + lane / 8;
      const int here = __shfl_sync(EVERY_LANE, slot, own), row = max(here, 0);
      const uint8_t* from = keys.cache + row / PAGE * keys.page_bytes + row % PAGE * ROW_BYTES + lane % 8 * 16;
      const u32 to = stage + swizzled(warp * 16 + own, lane % 8);
#pragma unroll
      for (int box = 0; box < BOXES; box++) copy_chunk(to + box * BOX, from + box * 128, here >= 0);
    }
    const u32 barrier = full_barrier(shared, t);
    arrive(barrier);
    arrive_when_copied(barrier);
  }
  wait_copied();
}
