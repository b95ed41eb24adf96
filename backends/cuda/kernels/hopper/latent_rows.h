// How MLA's cached rows lie in memory, by FORMAT: 0 bf16, 1152 bytes; 1 fp8_656: 512 e4m3, a f32 scale
// for each 128 of them, 64 bf16; 2 fp8_576: 576 e4m3. And to whom a row belongs. Loads nothing.
#pragma once
#include "ptx.h"

constexpr int LATENT = 512, ROPE = 64;  // kv_lora_rank, qk_rope_head_dim of DeepSeek-V3.2
constexpr bool IS_FP8 = FORMAT != 0, IS_SCALED = FORMAT == 1;
constexpr bool ROPE_IS_FP8 = FORMAT == 2;
constexpr int ROW_BYTES = FORMAT == 0 ? 1152 : FORMAT == 1 ? 656 : 576;
constexpr int ROPE_AT = FORMAT == 0 ? 1024 : FORMAT == 1 ? 528 : 512;  // bytes into a row
constexpr int SCALES_AT = 512;

// By a whole warp: the request among `starts` [reqs + 1] that owns a row; of rows behind all
// requests, the last.
INLINE int request_of(const int* starts, int reqs, int row, int lane) {
  int request = 0;
  for (int b = 0; b < reqs; b += 32) {
    const bool is_behind = b + lane < reqs && starts[1 + b + lane] <= row;
    request += __popc(__ballot_sync(EVERY_LANE, is_behind));
  }
  return min(request, reqs - 1);
}
