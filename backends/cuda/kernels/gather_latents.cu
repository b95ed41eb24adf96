// The cached rows of all requests' contexts behind one another, in bf16: what the keys and values of
// causal_mha.cu are expanded from. A row a warp; bytes alone count.
//
// Macros: FORMAT (hopper/latent_rows.h), PAGE (tokens).
#include "hopper/latent_rows.h"

constexpr int WARPS = 8;

// Sixteen bytes of a cached row as elements of bf16, `scale` times as large: the 16 bytes themselves,
// or 16 e4m3.
INLINE void widen(uint4* to, uint4 from, float scale) {
  const u32 words[4] = {from.x, from.y, from.z, from.w};
  u32 wide[8];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    u32 low, high;
    widen_e4m3(words[i], low, high);
    wide[2 * i] = pack_bf16(low_f16(low) * scale, high_f16(low) * scale);
    wide[2 * i + 1] = pack_bf16(low_f16(high) * scale, high_f16(high) * scale);
  }
  to[0] = make_uint4(wide[0], wide[1], wide[2], wide[3]);
  to[1] = make_uint4(wide[4], wide[5], wide[6], wide[7]);
}

// Grid: enough warps for `rows`; those behind the contexts leave at once.
extern "C" __global__ void __launch_bounds__(32 * WARPS) gather_latents(
    const uint8_t* __restrict__ cache,      // [pages, PAGE, ROW_BYTES]
    const int* __restrict__ contexts,       // [reqs + 1]: where each context begins
    const int* __restrict__ page_table,     // [reqs, pages of a request]
    __nv_bfloat16* __restrict__ latents,    // [rows, 512]
    __nv_bfloat16* __restrict__ rope_keys,  // [rows, 64]
    long long page_bytes, long long page_table_stride, int reqs, int rows) {
  const int lane = threadIdx.x % 32, row = blockIdx.x * WARPS + threadIdx.x / 32;
  if (row >= min(contexts[reqs], rows)) return;
  const int request = request_of(contexts, reqs, row, lane);
  const int position = row - contexts[request];
  const int page = page_table[request * page_table_stride + position / PAGE];
  const uint8_t* raw = cache + page * page_bytes + position % PAGE * ROW_BYTES;
  const uint4* from = (const uint4*)raw;
  uint4* latent = (uint4*)(latents + (long long)row * LATENT);
  uint4* rope = (uint4*)(rope_keys + (long long)row * ROPE);
  if constexpr (IS_FP8) {
    float scale = 1.f;
    if constexpr (IS_SCALED) scale = ((const float*)(raw + SCALES_AT))[lane / 8];
    widen(latent + 2 * lane, from[lane], scale);
  } else {
    latent[lane] = from[lane], latent[lane + 32] = from[lane + 32];
  }
  const uint4* rope_from = (const uint4*)(raw + ROPE_AT);
  if constexpr (ROPE_IS_FP8) {
    if (lane < 4) widen(rope + 2 * lane, rope_from[lane], 1.f);
  } else {
    if (lane < 8) rope[lane] = rope_from[lane];
  }
}
