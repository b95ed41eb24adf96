// A ring of stages between loading and computing warps: an mbarrier says full, another empty.
// Each thread arrives for itself: as fast as one lane for its warp, and compute-sanitizer's racecheck
// can follow it. Knows no rows.
#pragma once
#include "layout.h"

INLINE u32 full_barrier(u32 shared, int stage) { return shared + BARRIERS + stage * 16; }
INLINE u32 empty_barrier(u32 shared, int stage) { return shared + BARRIERS + stage * 16 + 8; }

// By one thread, before a barrier of the CTA.
INLINE void init_ring(u32 shared) {
  for (int s = 0; s < STAGES; s++) {
    init_barrier(full_barrier(shared, s), 32 * LOAD_WARPS);
    init_barrier(empty_barrier(shared, s), COMPUTE_THREADS);
  }
  publish_barriers();
}

INLINE void wait_full(u32 shared, int tile) {
  wait_for(full_barrier(shared, tile % STAGES), (tile / STAGES) & 1);
}
INLINE void wait_empty(u32 shared, int tile) {
  wait_for(empty_barrier(shared, tile % STAGES), ((tile / STAGES) & 1) ^ 1);
}
// A computing thread has read a tile for the last time.
INLINE void release(u32 shared, int tile) { arrive(empty_barrier(shared, tile % STAGES)); }
INLINE u32 stage_of(u32 shared, int tile) { return shared + RING + tile % STAGES * (TILE * PITCH); }
INLINE u32 mask_of(u32 shared, int tile) { return shared + MASK + tile % STAGES * (TILE * 4); }
