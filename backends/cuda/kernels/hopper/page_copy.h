// Whole pages of a cache by the copy engine through a tensor map [pages, rows, columns], boxes of all
// rows and 128 bytes of each, 128-byte swizzle. Knows no kernel.
// The tests put another file in place of this one, too (cuda_twin/tiles.h).
#ifndef HOPPER_PAGE_COPY
#define HOPPER_PAGE_COPY
#include "tiles.h"

// The page's box from a column on; the barrier hears of the bytes.
INLINE void load_page(u32 to, const TileMap* map, u32 barrier, int column, int page) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(0), "r"(page)
      : "memory");
}
#endif
