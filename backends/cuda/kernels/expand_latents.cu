// Keys and values of a group of heads from the latents of all contexts: kv = latents kv_b^T, in bf16.
//
// At 2,048 rows and 128 heads: 69 GFLOP, 34 MB of weights and 134 MB of result, so that products and
// memory take about as long. A tile is 128 rows of 256 columns (a head's keys, then its values) by two
// warpgroups, 64 rows each; one warp fills a ring of 64 dims of both sides (48 KB a stage) by tensor
// maps, and runs ahead into the next tile while a result lies in shared memory for the copy engine to
// store. CTAs stay; rows go fastest, so that a head's weights are read from memory once. Tiles behind
// the contexts are nobody's.
//
// Macros: STAGES, SHARED_BYTES.
#include "hopper/operands.h"
#include "hopper/tensor_copy.h"
#include "hopper/tile_products.h"

constexpr int LATENT = 512, ROWS = 128, COLUMNS = 256, DEPTH = 64;
constexpr int GROUP = 128, GROUPS = 2;  // threads of a warpgroup, those that compute
constexpr int LATENT_TILE = ROWS * 128, WEIGHT_TILE = COLUMNS * 128;  // bytes of a stage
constexpr int STAGE = LATENT_TILE + WEIGHT_TILE;
constexpr int RESULT_BOX = 64 * 128;  // bytes: 64 rows of 64 columns
constexpr int RESULT = STAGES * STAGE;  // [GROUPS][4] boxes
constexpr int BARRIERS = RESULT + GROUPS * 4 * RESULT_BOX;
static_assert(BARRIERS + STAGES * 16 == SHARED_BYTES, "the lowering gives another size of shared memory");
constexpr int LOAD_REGISTERS = 40, COMPUTE_REGISTERS = 232;

INLINE u32 full_barrier(u32 shared, int stage) { return shared + BARRIERS + stage * 16; }
INLINE u32 empty_barrier(u32 shared, int stage) { return full_barrier(shared, stage) + 8; }

struct Tiles {
  int down, count;  // tiles of rows; of all heads
  INLINE int row(int tile) const { return tile % down * ROWS; }
  INLINE int head(int tile) const { return tile / down; }
};

INLINE void load_tiles(u32 shared, const TensorMap& latents, const TensorMap& weights, Tiles tiles, int first,
                       int step) {
  int n = 0;  // stages filled
  for (int tile = first; tile < tiles.count; tile += step)
    for (int k = 0; k < LATENT / DEPTH; k++, n++) {
      const int stage = n % STAGES;
      wait_for_room(empty_barrier(shared, stage), (n / STAGES & 1) ^ 1);
      const u32 full = full_barrier(shared, stage), to = shared + stage * STAGE;
      arrive_expecting(full, STAGE);
      load_box(to, latents, k * DEPTH, 0, tiles.row(tile), full);
      load_box(to + LATENT_TILE, weights, k * DEPTH, 0, tiles.head(tile) * COLUMNS, full);
    }
}

// A warpgroup's sums into shared memory, as store_box reads them.
INLINE void stage_result(const float (&d)[128], u32 result, int warp, int lane) {
  const int matrix = lane >> 3, row = warp % 4 * 16 + (matrix & 1) * 8 + (lane & 7);
#pragma unroll
  for (int j = 0; j < 32; j += 2) {  // 8 columns each
    u32 r[4];
#pragma unroll
    for (int i = 0; i < 4; i++) r[i] = pack_bf16(d[4 * j + 2 * i], d[4 * j + 2 * i + 1]);
    store_matrices(result + j / 8 * RESULT_BOX + swizzled(row, j % 8 + (matrix >> 1)), r);
  }
  fence_async();
}

INLINE void compute(u32 shared, const TensorMap& expanded, Tiles tiles, int first, int step, int thread) {
  const int group = thread / GROUP, warp = thread / 32, lane = thread % 32;
  const u32 result = shared + RESULT + group * 4 * RESULT_BOX;
  const bool stores = thread % GROUP == 0;
  float d[128];
  int n = 0;
  for (int tile = first; tile < tiles.count; tile += step) {
#pragma unroll 1
    for (int k = 0; k < LATENT / DEPTH; k++, n++) {
      const int stage = n % STAGES;
      wait_for(full_barrier(shared, stage), n / STAGES & 1);
      const u64 a = operand_of(shared + stage * STAGE + group * 64 * 128);
      const u64 b = operand_of(shared + stage * STAGE + LATENT_TILE);
      products_begin();
#pragma unroll
      for (int i = 0; i < DEPTH / 16; i++) TileProduct<COLUMNS>::add(d, a + 2 * i, b + 2 * i, k + i != 0);
      products_commit();
      products_wait<1>();  // of the stage before
      if (k) arrive(empty_barrier(shared, (n + STAGES - 1) % STAGES));
    }
    products_wait<0>();
    settle(d);
    arrive(empty_barrier(shared, (n + STAGES - 1) % STAGES));
    if (stores) wait_stored();
    named_barrier(1 + group, GROUP);
    stage_result(d, result, warp, lane);
    named_barrier(1 + group, GROUP);
    if (stores) {
#pragma unroll
      for (int i = 0; i < 4; i++)
        store_box(expanded, i * 64, tiles.head(tile), tiles.row(tile) + group * 64, result + i * RESULT_BOX);
      commit_stores();
    }
  }
  if (stores) wait_stored();
}

// Grid: as many CTAs as the device runs at once; 384 threads.
extern "C" __global__ void __launch_bounds__(GROUP * (GROUPS + 1), 1) sm90_expand_latents(
    const __grid_constant__ TensorMap latents,   // [rows, 1, 512], boxes of 128, 1, 64
    const __grid_constant__ TensorMap weights,   // [heads * 256, 1, 512], boxes of 256, 1, 64
    const __grid_constant__ TensorMap expanded,  // [rows, heads, 256], boxes of 64, 1, 64
    const int* __restrict__ total,               // [1]: rows of all contexts
    unsigned* __restrict__ tickets,              // [1]: set to 0, for causal_mha.cu
    int rows, int heads) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const u32 shared = shared_address(memory);
  const int thread = threadIdx.x;
  const int down = (min(*total, rows) + ROWS - 1) / ROWS;
  const Tiles tiles{down, down * heads};
  if (thread == 0) {
    if (blockIdx.x == 0) *tickets = 0;
    for (int s = 0; s < STAGES; s++) {
      init_barrier(full_barrier(shared, s), 1);
      init_barrier(empty_barrier(shared, s), GROUP * GROUPS);
    }
    publish_barriers();
  }
  __syncthreads();
  if (thread >= GROUP * GROUPS) {
    give_registers<LOAD_REGISTERS>();
    if (thread == GROUP * GROUPS) load_tiles(shared, latents, weights, tiles, blockIdx.x, gridDim.x);
  } else {
    take_registers<COMPUTE_REGISTERS>();
    compute(shared, expanded, tiles, blockIdx.x, gridDim.x, thread);
  }
}
