// From a CTA's sums to the result: written at once, or summed over the cluster through distributed
// shared memory, in rank order (so repeats give the same bits). Nothing selected gives zeros.
#pragma once
#include "softmax.h"
#include "cluster_sum.h"

INLINE void write_alone(const Output& o, const Result& result, u32 shared, int warp, int lane) {
#pragma unroll
  for (int j = 0; j < HEADS / 8; j++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const int head = 8 * j + 2 * (lane & 3) + e;
      if (!result.has(head)) continue;
      const float factor = factor_of(load(shared + SUMS + head * 4));
      __nv_bfloat16* to = result.of(head);
#pragma unroll
      for (int m = 0; m < DIM_TILES; m++) {
        const int dim = first_dim(warp, m, lane >> 2);
        const float first = o[m][4 * j + e] * factor, second = o[m][4 * j + 2 + e] * factor;
        if constexpr (SECOND_DIM == 1) *(u32*)(to + dim) = pack_bf16(first, second);
        else to[dim] = __float2bfloat16(first), to[dim + SECOND_DIM] = __float2bfloat16(second);
      }
    }
}

INLINE void keep_partial(const Output& o, u32 shared, int warp, int lane) {
#pragma unroll
  for (int j = 0; j < HEADS / 8; j++)
#pragma unroll
    for (int e = 0; e < 2; e++)
#pragma unroll
      for (int m = 0; m < DIM_TILES; m++) {
        const int head = 8 * j + 2 * (lane & 3) + e;
        const u32 to = shared + (head * PARTIAL_PITCH + first_dim(warp, m, lane >> 2)) * 4;
        if constexpr (SECOND_DIM == 1) store2(to, o[m][4 * j + e], o[m][4 * j + 2 + e]);
        else store(to, o[m][4 * j + e]), store(to + SECOND_DIM * 4, o[m][4 * j + 2 + e]);
      }
}

INLINE void write_over_cluster(const Output& o, const Result& result, u32 shared, int splits, int rank, int warp, int lane) {
  keep_partial(o, shared, warp, lane);
  sum_over_cluster(result, shared, splits, rank, warp, lane);
}
