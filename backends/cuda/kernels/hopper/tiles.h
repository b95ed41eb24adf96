// Tiles of a matrix by the copy engine through a tensor map, to one CTA or to all of a cluster, and
// what CTAs of a cluster tell each other. 128-byte rows, 128-byte swizzle. Knows no kernel.
// The tests put another file in place of this one, too (cuda_twin/tiles.h).
#ifndef HOPPER_TILES
#define HOPPER_TILES
#include "ptx.h"

struct alignas(64) TileMap {
  char bytes[128];
};

INLINE u32 cluster_rank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// The box of the map from column and row on; the barrier hears of the bytes. Zeros outside the matrix.
INLINE void load_tile(u32 to, const TileMap* map, u32 barrier, int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}
// The same into each CTA whose bit is set, at the same place, with its own barrier at the same place.
INLINE void load_tile_for(u32 to, const TileMap* map, u32 barrier, int column, int row, int ranks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "h"((uint16_t)ranks)
      : "memory");
}
// A word into shared memory of another CTA, whose barrier there hears of its four bytes.
INLINE void send_word(u32 to, u32 barrier, u32 rank, u32 x) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(in_rank(to, rank)),
               "r"(x), "r"(in_rank(barrier, rank))
               : "memory");
}
// Without .release.cluster, whose fence over the device would stand in every step of a loop: what is
// handed over is shared memory that was only read, by wgmma that has ended.
INLINE void arrive_in(u32 barrier, u32 rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(in_rank(barrier, rank)) : "memory");
}
#endif
