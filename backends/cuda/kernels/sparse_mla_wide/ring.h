// Who waits for whom. Stages pass between the warps that load, score and add values: an mbarrier says full,
// another scored, another empty; three more say once that the query is there, that it is taken out of the last
// stage, and that all is summed. At each of them every thread that wrote or read arrives for itself: an arrival
// releases what it did before, a wait acquires it. (Not bar.arrive: it orders as well, but compute-sanitizer's
// racecheck reported the query's reads and the sums' writes before it.) What a product (of the async proxy)
// reads of ordinary writes is fenced between the two; what a product has read is free once its thread has
// waited for the product. Knows no rows.
#pragma once
#include "layout.h"

constexpr int QUERY_THERE = HANDOVERS, QUERY_TAKEN = HANDOVERS + 8, SUMMED = HANDOVERS + 16;

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
  init_barrier(shared + QUERY_THERE, COMPUTE_THREADS);
  init_barrier(shared + QUERY_TAKEN, SCORE_THREADS);
  init_barrier(shared + SUMMED, SCORE_THREADS + COMPUTE_THREADS);
  publish_barriers();
}

// Copies into the ring are ordinary writes, over once the barrier says so: who waits for them fences for itself.
INLINE void wait_full(u32 shared, int tile) {
  wait_for(full_barrier(shared, tile), (tile / STAGES) & 1);
  fence_async();
}
// Weights and decays of a tile. Who stored weights has fenced; by it the tile's scores are also read for good.
INLINE void wait_scored(u32 shared, int tile) { wait_for(scored_barrier(shared, tile), (tile / STAGES) & 1); }
// Who adds values arrives last: it waited for who scored, so that nobody reads the tile any more.
INLINE void wait_empty(u32 shared, int tile) { wait_for(empty_barrier(shared, tile), ((tile / STAGES) & 1) ^ 1); }
INLINE u32 stage_of(u32 shared, int tile) { return shared + RING + tile % STAGES * STAGE; }
INLINE u32 there_of(u32 shared, int tile) { return shared + THERE + tile % STAGES * (LOAD_WARPS * 4); }
INLINE u32 decay_of(u32 shared, int tile) { return shared + DECAY + tile % STAGES * (HEADS * 4); }
INLINE u32 moved_of(u32 shared, int tile) { return shared + MOVED + tile % STAGES * (SCORE_WARPS * 4); }
