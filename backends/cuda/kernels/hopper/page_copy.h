// Whole pages of a cache by the copy engine through a tensor map [pages, rows, 128 bytes], 128-byte
// swizzle. Knows no kernel.
// The tests put another file in place of this one, too (cuda_twin/tiles.h).
#ifndef HOPPER_PAGE_COPY
#define HOPPER_PAGE_COPY
#include "tiles.h"

// The box of the map that begins the page; the barrier hears of the bytes.
INLINE void load_page(u32 to, const TileMap* map, u32 barrier, int page) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %3, %4}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(0), "r"(page)
      : "memory");
}
#endif
