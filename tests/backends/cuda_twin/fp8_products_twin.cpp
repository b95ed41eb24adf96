// The fp8 products' kernel on the CPU, a cluster at a time, as a shared library for the tests.
#include "tiles.h"

#include PRODUCTS_SOURCE

static struct Given {
  const TileMap *x, *weight, *up;
  const float *x_scale, *weight_scale, *up_scale;
  uint8_t* out;
  float* out_scale;
  const int *real_rows, *pair_of_slot, *expert_of_tile;
  long long out_stride;
  int scale_row, scale_block, rows, columns, blocks, most_row_tiles, turns;
  u32* tickets;
  int clusters;
} given;

static void one(int) {
  const Given& g = given;
  sm90_fp8_products(*g.x, *g.weight, *g.up, g.x_scale, g.weight_scale, g.up_scale, g.out, g.out_scale, g.real_rows,
                    g.pair_of_slot, g.expert_of_tile, g.out_stride, g.scale_row, g.scale_block, g.rows, g.columns,
                    g.blocks, g.most_row_tiles, g.turns, g.tickets);
}

alignas(1024) uint8_t memory[1];  // the kernel's extern array; addresses are the twin's own

extern "C" void multiply_rows(const Given* inputs) {
  given = *inputs;
  meeting = THREADS;
  gridDim.x = given.clusters * CLUSTER;
  for (int cluster = 0; cluster < given.clusters; cluster++) {
    shared_memories.assign(CLUSTER, std::vector<char>(SHARED_BYTES, (char)0xff));
    warp_words.assign(CLUSTER * THREADS / 32, {});
    named.assign(CLUSTER, std::vector<Named>(16));
    phases.assign(CLUSTER, {});
    twin::first_block = cluster * CLUSTER;
    twin::run(CLUSTER, THREADS, nullptr, 0, one);
  }
}
