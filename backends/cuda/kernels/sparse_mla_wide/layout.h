// What a CTA of 64 heads keeps in shared memory, for bf16 rows. Computes nothing.
#pragma once
#include "hopper/latent_rows.h"

constexpr int TILE = 64;  // keys of a stage
constexpr int VALUE_WARPS = 8, SCORE_WARPS = 4, LOAD_WARPS = TILE / 16;  // in this order
constexpr int COMPUTE_WARPS = VALUE_WARPS, COMPUTE_THREADS = 32 * VALUE_WARPS;  // what sums over a cluster
constexpr int SCORE_THREADS = 32 * SCORE_WARPS, LOAD_THREADS = 32 * LOAD_WARPS;
constexpr float LIFT = 1.f;  // of latents: bf16 holds any

// A stage is nine boxes of 64 dims: rows of 128 bytes, swizzled, for both products. Once a tile is
// scored its weights, a box of [HEADS][64] bf16, take the place of its rope.
constexpr int BOX = TILE * 128, HEAD_BOX = HEADS * 128;
constexpr int BOXES = (LATENT + ROPE) / 64, WEIGHTS = (BOXES - 1) * BOX, STAGE = WEIGHTS + HEAD_BOX;
// Of the term of the query that registers hold (of two the smaller) so many steps of 16 dims; the box that
// they would cut lends its last one a place of its own. The rest, and the larger of two, are boxes.
constexpr int KEPT_STEPS = QUERY_PARTS == 2 ? 27 : 24, KEPT_BOXES = (KEPT_STEPS + 3) / 4;
constexpr bool HAS_LONE = KEPT_STEPS % 4 != 0;
constexpr int LONE_STEP = KEPT_BOXES * 4 - 1, LONE_BYTES = HAS_LONE ? HEADS * 32 : 0;
constexpr int QUERY_BOXES = QUERY_PARTS == 2 ? BOXES + LATENT / 64 - KEPT_BOXES : BOXES - KEPT_BOXES;
static_assert(!HAS_LONE || KEPT_STEPS == LONE_STEP, "one step has a place of its own");

constexpr int RING = 0;                             // [STAGES] of STAGE bytes
constexpr int QUERY = RING + STAGES * STAGE;        // [QUERY_BOXES][HEADS][64] bf16
constexpr int LONE = QUERY + QUERY_BOXES * HEAD_BOX;     // [2][HEADS][8] bf16
constexpr int THERE = LONE + LONE_BYTES;            // [STAGES][LOAD_WARPS], a bit a key
constexpr int DECAY = THERE + STAGES * LOAD_WARPS * 4;                      // [STAGES][HEADS] f32
constexpr int MOVED = DECAY + STAGES * HEADS * 4;           // [STAGES][SCORE_WARPS] whether a maximum moved
constexpr int BARRIERS = MOVED + STAGES * SCORE_WARPS * 4;  // [STAGES] full, scored, empty
constexpr int HANDOVERS = BARRIERS + STAGES * 24;           // the query brought, taken; all summed
constexpr int END = HANDOVERS + 24;
// Over the query once all is scored, for the end.
constexpr int PARTS = QUERY;               // [HEADS] f32, of the sum over a cluster
constexpr int MAXIMA = PARTS + HEADS * 4;  // [HEADS] f32, base 2
constexpr int SUMS = MAXIMA + HEADS * 4;   // [HEADS] f32
// Partial sums of a split, over the ring: f32 [HEADS][PARTIAL_PITCH].
constexpr int PARTIAL_PITCH = LATENT + 8;
static_assert(HEADS == 64, "heads are the products' M side");
static_assert(KEPT_BOXES * HEAD_BOX <= STAGE, "what is passed on is more than a stage");
static_assert(FORMAT == 0, "rows of another format would have to be widened on their way");
static_assert(HEADS * PARTIAL_PITCH * 4 <= QUERY, "partial sums overlap what the combine reads");
static_assert(BARRIERS % 8 == 0, "mbarriers have 8 bytes");
static_assert(END == SHARED_BYTES, "the lowering gives another size of shared memory");

constexpr float NO_KEY = -1e30f;  // the maximum before the first key; finite, so that -inf - it is -inf

// Named barriers, in which all who come wait; 0 is __syncthreads.
constexpr int ALL_COMPUTE = 1, ALL_SCORE = 2;
