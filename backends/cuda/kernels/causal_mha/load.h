// The loading thread: queries, and tiles of keys and values from the last that is seen to the first.
#pragma once
#include "layout.h"

struct Maps {
  const TensorMap &q_nope, &q_rope, &expanded, &rope_keys;
};

// The first ticket is the CTA's number, the others are drawn: the next one while an item is loaded.
INLINE void load_work(u32 shared, const Maps& maps, const Work& work, unsigned* tickets) {
  int n = 0, queries = 0;  // tiles of keys; of queries
  for (int ticket = blockIdx.x, next; ticket < work.count; ticket = next) {
    next = gridDim.x + (int)atomicAdd(tickets, 1u);
    const Item item = work.item(ticket);
    const QueryTile& tile = item.tile;
    const int head = item.head, last = key_tiles(tile) - 1;
    for (int t = last; t >= 0; t--, n++) {
      const int stage = n % STAGES, parity = (n / STAGES & 1) ^ 1, first = tile.context + t * KEYS;
      const u32 keys = shared + KEY_RING + stage * KEY_BYTES, key_barrier = key_full(shared, stage);
      wait_for_room(key_empty(shared, stage), parity);
      arrive_expecting(key_barrier, KEY_BYTES);
      load_box(keys, maps.expanded, 0, head, first, key_barrier);
      load_box(keys + KEY_BOX, maps.expanded, 64, head, first, key_barrier);
      load_box(keys + 2 * KEY_BOX, maps.rope_keys, 0, 0, first, key_barrier);
      const u32 values = shared + VALUE_RING + stage * VALUE_BYTES, value_barrier = value_full(shared, stage);
      wait_for_room(value_empty(shared, stage), parity);
      arrive_expecting(value_barrier, VALUE_BYTES);
      load_box(values, maps.expanded, NOPE, head, first, value_barrier);
      load_box(values + KEY_BOX, maps.expanded, NOPE + 64, head, first, value_barrier);
      if (t < last) continue;
      const u32 full = query_full(shared);  // behind the first keys, which need not wait for results
      wait_for_room(query_empty(shared), (queries++ & 1) ^ 1);
      tell(shared, item);
      arrive_expecting(full, QUERY_BYTES);
      load_box(shared + QUERY, maps.q_nope, 0, head, tile.row, full);
      load_box(shared + QUERY + QUERY_BOX, maps.q_nope, 64, head, tile.row, full);
      load_box(shared + QUERY + 2 * QUERY_BOX, maps.q_rope, 0, head, tile.row, full);
    }
  }
  wait_for_room(query_empty(shared), (queries & 1) ^ 1);
  tell(shared, {NO_HEAD, {}});
  arrive(query_full(shared));
}
