// A ring of stages between loading and computing warps: an mbarrier says full, another empty.
// EVERY_LANE_ARRIVES: each thread arrives for itself instead of one lane for its warp, which
// compute-sanitizer's racecheck can follow. Knows no rows.
#pragma once
#include "layout.h"

constexpr int ARRIVALS_A_WARP = EVERY_LANE_ARRIVES ? 32 : 1;

INLINE u32 full_barrier(u32 shared, int stage) { return shared + BARRIERS + stage * 16; }
INLINE u32 empty_barrier(u32 shared, int stage) { return shared + BARRIERS + stage * 16 + 8; }

// By one thread, before a barrier of the CTA.
INLINE void init_ring(u32 shared) {
  for (int s = 0; s < STAGES; s++) {
    init_barrier(full_barrier(shared, s), LOAD_WARPS * ARRIVALS_A_WARP);
    init_barrier(empty_barrier(shared, s), COMPUTE_WARPS * ARRIVALS_A_WARP);
  }
  publish_barriers();
}

INLINE void wait_full(u32 shared, int tile) {
  wait_for(full_barrier(shared, tile % STAGES), (tile / STAGES) & 1);
}
INLINE void wait_empty(u32 shared, int tile) {
  wait_for(empty_barrier(shared, tile % STAGES), ((tile / STAGES) & 1) ^ 1);
}
// A computing warp has read a tile for the last time.
INLINE void release(u32 shared, int tile, int lane) {
  if constexpr (!EVERY_LANE_ARRIVES) __syncwarp();
  if (EVERY_LANE_ARRIVES || lane == 0) arrive(empty_barrier(shared, tile % STAGES));
}
INLINE u32 stage_of(u32 shared, int tile) { return shared + RING + tile % STAGES * (TILE * PITCH); }
INLINE u32 mask_of(u32 shared, int tile) { return shared + MASK + tile % STAGES * (TILE * 4); }
