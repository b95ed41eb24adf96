// How cached rows lie in memory, and what a CTA keeps in shared memory. Computes nothing.
//
// FORMAT 0: bf16, 1152 bytes. 1: fp8_656: 512 e4m3, a f32 scale for each 128 of them, 64 bf16.
// 2: fp8_576: 576 e4m3.
#pragma once
#include "../hopper/ptx.h"

constexpr int LATENT = 512, ROPE = 64;  // kv_lora_rank, qk_rope_head_dim of DeepSeek-V3.2
constexpr int TILE = 64;                // keys of a stage, the M side of the products
constexpr int COMPUTE_WARPS = 8, LOAD_WARPS = 4;
constexpr int COMPUTE_THREADS = 32 * COMPUTE_WARPS;

constexpr bool IS_FP8 = FORMAT != 0, IS_SCALED = FORMAT == 1;
constexpr bool ROPE_IS_FP8 = FORMAT == 2;
constexpr int ROW_BYTES = FORMAT == 0 ? 1152 : FORMAT == 1 ? 656 : 576;
constexpr int ROPE_AT = FORMAT == 0 ? 1024 : FORMAT == 1 ? 528 : 512;  // bytes into a row
constexpr int SCALES_AT = 512;
// Odd multiples of 16 bytes: the 8 rows that ldmatrix reads at once lie in different banks.
constexpr int PITCH = ROW_BYTES / 16 % 2 ? ROW_BYTES : ROW_BYTES + 16;
// Scaled latents are held as f16 this much larger: rows of 1e-3 keep their bits, and latents of
// up to 4,094 fit (RMSNorm bounds them by 23 times its largest weight).
constexpr float LIFT = IS_SCALED ? 16.f : 1.f;

// Two-term queries (bf16 caches): the latent query's bf16 part, and what that leaves as another.
constexpr int HEAD_TILE = HEADS * 128;  // bytes: 64 dims of all heads, one swizzled operand
constexpr int QUERY_TILES = 9, REST_TILES = QUERY_PARTS == 2 ? 8 : 0;

constexpr int QUERY = 0;                                          // [tiles][HEADS][64] 16-bit
constexpr int WEIGHTS = QUERY + (QUERY_TILES + REST_TILES) * HEAD_TILE;  // [2][HEADS][TILE] 16-bit
constexpr int RING = WEIGHTS + 2 * HEAD_TILE;                     // [STAGES][TILE][PITCH] bytes
constexpr int MASK = RING + STAGES * TILE * PITCH;                // [STAGES][TILE] 0 or -inf
constexpr int PARTS = MASK + STAGES * TILE * 4;                   // [COMPUTE_WARPS][HEADS] f32
constexpr int MAXIMA = PARTS + COMPUTE_WARPS * HEADS * 4;         // [HEADS] f32, base 2
constexpr int DECAY = MAXIMA + HEADS * 4;                         // [HEADS] f32
constexpr int SUMS = DECAY + HEADS * 4;                           // [HEADS] f32
constexpr int BARRIERS = SUMS + HEADS * 4;                        // [STAGES] full, empty
constexpr int END = BARRIERS + STAGES * 16;
// Partial sums of a split, over query, weights and ring: f32 [HEADS][PARTIAL_PITCH].
constexpr int PARTIAL_PITCH = LATENT + 8;
static_assert(HEADS * PARTIAL_PITCH * 4 <= MASK, "partial sums overlap what the combine reads");
static_assert(END == SHARED_BYTES, "the lowering gives another size of shared memory");
static_assert(QUERY_PARTS == 1 || !IS_FP8, "f16 queries have one part");

constexpr float NO_KEY = -1e30f;  // the maximum before the first key; finite, so that -inf - it is -inf

// Named barriers; 0 is __syncthreads.
constexpr int ALL_COMPUTE = 1, ANY_ABOVE = 2;
