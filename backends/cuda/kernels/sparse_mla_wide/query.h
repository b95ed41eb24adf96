// The query of one row for 64 heads as the products' A side: most of one term (of two the smaller: what
// bf16 leaves of the latents) in registers of the scoring warps, the rest in shared memory.
// The warps that add values have nothing to do yet: they bring it, by way of the last stage.
#pragma once
#include "hopper/operands.h"
#include "ring.h"
#include "sparse_mla/row_inputs.h"

constexpr int STEPS = (LATENT + ROPE) / 16, LATENT_STEPS = LATENT / 16;
// As ldmatrix yields 16 heads of a warp by 16 dims: A operands.
typedef u32 KeptQuery[4 * KEPT_STEPS];
constexpr int PASSED = RING + (STAGES - 1) * STAGE;  // boxes on their way into registers

INLINE constexpr bool is_lone(int term, int step) { return HAS_LONE && term == QUERY_PARTS - 1 && step == LONE_STEP; }
// Where the box of a step of a term lies, the first term the larger.
INLINE constexpr int query_box(int term, int step) {
  const int box = step / 4;
  if (QUERY_PARTS == 2 && term == 0) return QUERY + box * HEAD_BOX;
  if (box < KEPT_BOXES) return PASSED + box * HEAD_BOX;
  return QUERY + ((QUERY_PARTS == 2 ? BOXES : 0) + box - KEPT_BOXES) * HEAD_BOX;
}
// The same for a product of 64 heads: the lone step's rows of 16 bytes are not swizzled.
INLINE u64 query_operand(u32 shared, int term, int step) {
  if (is_lone(term, step)) return (u64)((shared + LONE & 0x3FFFF) >> 4) | ((u64)(HEADS * 16 >> 4) << 16) | ((u64)8 << 32);
  return operand_of(shared) + (query_box(term, step) + step % 4 * 32) / 16;
}

INLINE void put(u32 shared, int term, int step, int head, const u32 (&y)[8]) {
  const u32 box = shared + query_box(term, step);
  const u32 first = is_lone(term, step) ? shared + LONE + head * 16 : box + swizzled(head, step % 4 * 2);
  const u32 second = is_lone(term, step) ? first + HEADS * 16 : box + swizzled(head, step % 4 * 2 + 1);
  store4(first, y[0], y[1], y[2], y[3]);
  store4(second, y[4], y[5], y[6], y[7]);
}

// By the warps that add values.
INLINE void bring_query(u32 shared, const Query& query, int row, int first_head, int thread) {
#pragma unroll 3
  for (int i = thread; i < HEADS * STEPS; i += COMPUTE_THREADS) {
    const int head = i / STEPS, step = i % STEPS;
    float x[16];
    query.read(x, row, first_head + head, step);
    u32 y[8];
#pragma unroll
    for (int j = 0; j < 8; j++) y[j] = pack_bf16(x[2 * j], x[2 * j + 1]);
    put(shared, 0, step, head, y);
    if (QUERY_PARTS == 1 || step >= LATENT_STEPS) continue;
#pragma unroll
    for (int j = 0; j < 8; j++) y[j] = pack_bf16(x[2 * j] - low_bf16(y[j]), x[2 * j + 1] - high_bf16(y[j]));
    put(shared, 1, step, head, y);
  }
  fence_async();  // products read it
  arrive(shared + QUERY_THERE);
}

// By the scoring warps. After it the last stage is for keys.
INLINE void take_query(KeptQuery& kept, u32 shared, int warp, int lane) {
  wait_for(shared + QUERY_THERE, 0);
  const u32 first = shared + PASSED + swizzled(warp * 16 + (lane & 15), lane >> 4);
#pragma unroll
  for (int step = 0; step < KEPT_STEPS; step++)
    load_matrices(kept + 4 * step, (first ^ step % 4 * 32) + step / 4 * HEAD_BOX);
  arrive(shared + QUERY_TAKEN);
}
INLINE void wait_last_stage(u32 shared) { wait_for(shared + QUERY_TAKEN, 0); }
