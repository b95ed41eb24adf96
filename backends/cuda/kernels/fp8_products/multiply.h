// A warpgroup's products of one tile. Matrix units sum 128 of K; each such sum is multiplied by the
// scales of its rows and of its weight block and added in f32. Scales are read while the units work.
#pragma once
#include "../hopper/tiles.h"
#include "../hopper/wgmma_fp8.h"
#include "tiles.h"

struct Scales {
  const float *x, *weight, *up;
  int of_row, of_block;  // elements from row to row of x and from block to block of K
};

// Where a lane's scales lie in them: of its two rows of each part, and of the tile's columns; now at the
// block of K that is multiplied.
struct Marks {
  int row[PARTS][2], weight;
};

// PRODUCTS sums: of so many parts, or where GATED of both weights; lane l has rows l / 4 and l / 4 + 8
// of its warp's 16, of each 8 columns 2 (l % 4) and the next.
template <int PRODUCTS> struct Sums {
  float of[PRODUCTS][64];
};

// The place is free again in all CTAs whose copies may land in it. Each lane arrives for itself.
INLINE void leave(u32 shared, int stage) {
  if (CLUSTER == 1) {
    arrive(empty_barrier(shared, stage));
  } else {
#pragma unroll
    for (int rank = 0; rank < CLUSTER; rank++) arrive_in(empty_barrier(shared, stage), rank);
  }
}

template <int PRODUCTS>
INLINE void multiply(Sums<PRODUCTS>& sums, Place& place, u32 shared, const Scales& scales, Marks marks, int blocks,
                     int warpgroup, int lane) {
#pragma unroll
  for (int p = 0; p < PRODUCTS; p++)
#pragma unroll
    for (int i = 0; i < 64; i++) sums.of[p][i] = 0.f;
#pragma unroll 1
  for (int block = 0; block < blocks; block++, place.next()) {
    float of_row[PARTS][2], of_weight[WEIGHTS];
#pragma unroll
    for (int part = 0; part < (GATED ? 1 : PRODUCTS); part++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        of_row[part][half] = read_global(scales.x + marks.row[part][half]);
        marks.row[part][half] += scales.of_block;
      }
    of_weight[0] = read_global(scales.weight + marks.weight);
    if (GATED) of_weight[WEIGHTS - 1] = read_global(scales.up + marks.weight);
    marks.weight++;
    wait_for(full_barrier(shared, place.stage), place.parity);
    const u32 stage = stage_at(shared, place.stage);
#pragma unroll
    for (int p = 0; p < PRODUCTS; p++) {
      const int part = GATED ? 0 : p, weight = GATED ? p : 0;
      const u32 a = stage + (warpgroup + WARPGROUPS * part) * PART_BYTES, b = stage + WEIGHTS_AT + weight * WEIGHT_BYTES;
      float found[64];
      hold(found);
      products_begin();
#pragma unroll
      for (int term = 0; term < TERMS; term++)
#pragma unroll
        for (int k = 0; k < BLOCK; k += 32)
          add_e4m3_product(found, rows_operand(a + term * TERM_BYTES + k), rows_operand(b + k), term + k);
      products_commit();
      hold(found);
      products_wait<0>();
      if (p == PRODUCTS - 1) leave(shared, place.stage);
      const float first = of_row[part][0] * of_weight[weight], second = of_row[part][1] * of_weight[weight];
#pragma unroll
      for (int i = 0; i < 64; i += 4) {
        sums.of[p][i] += found[i] * first, sums.of[p][i + 1] += found[i + 1] * first;
        sums.of[p][i + 2] += found[i + 2] * second, sums.of[p][i + 3] += found[i + 3] * second;
      }
    }
  }
}

// Of a warpgroup without a part: it only lets the stages go.
INLINE void skip(Place& place, u32 shared, int blocks) {
  for (int block = 0; block < blocks; block++, place.next()) {
    wait_for(full_barrier(shared, place.stage), place.parity);
    leave(shared, place.stage);
  }
}
