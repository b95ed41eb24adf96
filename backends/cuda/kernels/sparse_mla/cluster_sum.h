// The result of a row's heads, and its sum over a cluster: each CTA's partial sums through distributed
// shared memory in rank order, so repeats give the same bits. Include it behind a
// layout, which says HEADS, COMPUTE_THREADS and where what it reads lies.
#pragma once
#include "hopper/operands.h"

struct Result {
  __nv_bfloat16* out;  // [heads, rows, LATENT]
  int heads, rows, row, first_head;

  INLINE bool has(int head) const { return first_head + head < heads; }
  INLINE __nv_bfloat16* of(int head) const {
    return out + ((long long)(first_head + head) * rows + row) * LATENT;
  }
};

INLINE float factor_of(float sum) { return sum > 0.f ? 1.f / (sum * LIFT) : 0.f; }

// By COMPUTE_THREADS of every CTA of a cluster of `splits`, a power of two, once a CTA's partial sums,
// maxima and weights' sums are stored: each sums HEADS / splits heads. Who has stored some and is none of
// these comes to the two barriers of the cluster, too.
INLINE void sum_over_cluster(const Result& result, u32 shared, int splits, int rank, int warp, int lane) {
  const int thread = warp * 32 + lane, own = HEADS / splits;
  const u32 factors = shared + PARTS;  // [own][splits]
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
