// Boxes of a tensor map between global and shared memory by the copy engine. Knows no kernel.
// The tests put another file in place of this one, too.
#ifndef HOPPER_TENSOR_COPY
#define HOPPER_TENSOR_COPY
#include "ptx.h"

// A CUtensorMap, as a kernel takes it: const __grid_constant__.
struct alignas(64) TensorMap {
  u64 words[16];
};

// The box at element (x, y, z), x the dense axis, into `to`; `barrier` hears of its bytes. What lies
// outside the map's view is zero.
INLINE void load_box(u32 to, const TensorMap& map, int x, int y, int z, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}
// The box to global memory; nothing is written outside the view. Until wait_stored `from` is read.
INLINE void store_box(const TensorMap& map, int x, int y, int z, u32 from) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(&map),
               "r"(x), "r"(y), "r"(z), "r"(from)
               : "memory");
}
INLINE void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// By the thread that stored.
INLINE void wait_stored() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
#endif
