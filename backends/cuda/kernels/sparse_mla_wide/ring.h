// Stages between the warps that load, score and add values: an mbarrier says full, another scored, another
// empty. Each thread arrives for itself. Knows no rows.
#pragma once
#include "layout.h"

INLINE u32 full_barrier(u32 shared, int tile) { return shared + BARRIERS + tile % STAGES * 24; }
INLINE u32 scored_barrier(u32 shared, int tile) { return full_barrier(shared, tile) + 8; }
INLINE u32 empty_barrier(u32 shared, int tile) { return full_barrier(shared, tile) + 16; }

// By one thread, before a barrier of the CTA.
INLINE void init_ring(u32 shared) {
  for (int s = 0; s < STAGES; s++) {
    init_barrier(full_barrier(shared, s), 2 * LOAD_THREADS);  // what keys are there, and what it copied
    init_barrier(scored_barrier(shared, s), SCORE_THREADS);
    init_barrier(empty_barrier(shared, s), COMPUTE_THREADS);
  }
  publish_barriers();
}

// Copies into the ring are ordinary writes to shared memory: what waits for them fences for itself.
INLINE void wait_full(u32 shared, int tile) {
  wait_for(full_barrier(shared, tile), (tile / STAGES) & 1);
  fence_async();
}
INLINE void wait_scored(u32 shared, int tile) { wait_for(scored_barrier(shared, tile), (tile / STAGES) & 1); }
INLINE void wait_empty(u32 shared, int tile) { wait_for(empty_barrier(shared, tile), ((tile / STAGES) & 1) ^ 1); }
INLINE u32 stage_of(u32 shared, int tile) { return shared + RING + tile % STAGES * STAGE; }
INLINE u32 there_of(u32 shared, int tile) { return shared + THERE + tile % STAGES * 16; }
INLINE u32 decay_of(u32 shared, int tile) { return shared + DECAY + tile % STAGES * (HEADS * 4); }
INLINE u32 moved_of(u32 shared, int tile) { return shared + MOVED + tile % STAGES * (SCORE_WARPS * 4); }
