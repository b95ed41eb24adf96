// From a CTA's sums to the result: written at once, or summed over the cluster through distributed
// shared memory, in rank order (so repeats give the same bits). Nothing selected gives zeros.
#pragma once
#include "softmax.h"

struct Result {
  __nv_bfloat16* out;  // [heads, rows, LATENT]
  int heads, rows, row, first_head;

  INLINE bool has(int head) const { return first_head + head < heads; }
  INLINE __nv_bfloat16* of(int head) const {
    return out + ((long long)(first_head + head) * rows + row) * LATENT;
  }
};

INLINE float factor_of(float sum) { return sum > 0.f ? 1.f / (sum * LIFT) : 0.f; }

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

// Every CTA of a cluster of `splits` sums HEADS / splits heads; splits is a power of two.
INLINE void write_over_cluster(const Output& o, const Result& result, u32 shared, int splits, int rank, int warp, int lane) {
  const int thread = warp * 32 + lane, own = HEADS / splits;
  const u32 factors = shared + PARTS;  // [own][splits]
  keep_partial(o, shared, warp, lane);
  cluster_barrier();
  if (warp < (HEADS + 31) / 32) {  // a lane a (head, split)
    const bool is_one = thread < HEADS;
    const u32 head = rank * own + (is_one ? thread / splits : 0), split = thread % splits;
    const float maximum = load_remote(in_rank(shared + MAXIMA + head * 4, split));
    const float sum = load_remote(in_rank(shared + SUMS + head * 4, split));
    float highest = maximum;
    for (int d = 1; d < splits; d *= 2) highest = fmaxf(highest, __shfl_xor_sync(EVERY_LANE, highest, d));
    const float decay = exp2_fast(maximum - highest);
    float total = decay * sum;
    for (int d = 1; d < splits; d *= 2) total += __shfl_xor_sync(EVERY_LANE, total, d);
    if (is_one) store(factors + thread * 4, decay * factor_of(total));
  }
  named_barrier(ALL_COMPUTE, COMPUTE_THREADS);
#pragma unroll 2
  for (int i = thread; i < own * (LATENT / 4); i += COMPUTE_THREADS) {
    const int local = i / (LATENT / 4), dim = i % (LATENT / 4) * 4, head = rank * own + local;
    float x[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll 8
    for (int split = 0; split < splits; split++) {
      float part[4];
      load_remote4(in_rank(shared + (head * PARTIAL_PITCH + dim) * 4, split), part);
      const float factor = load(factors + (local * splits + split) * 4);
#pragma unroll
      for (int k = 0; k < 4; k++) x[k] += factor * part[k];
    }
    if (result.has(head)) *(uint2*)(result.of(head) + dim) = make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
  }
  cluster_barrier();  // no CTA leaves while another reads its memory
}
