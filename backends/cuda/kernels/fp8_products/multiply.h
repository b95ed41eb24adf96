// A warpgroup's products of one tile. Matrix units sum 128 of K; each such sum is multiplied by the
// scales of its rows and of its weight block and added in f32. Scales are read a block ahead.
#pragma once
#include "../hopper/tiles.h"
#include "../hopper/wgmma_fp8_widths.h"
#include "tiles.h"

struct Scales {
  const float *x, *weight, *up;
  int of_row, of_block;  // elements from row to row of x and from block to block of K
};

// Where a lane's scales lie in them: of its two rows of each part, and of the blocks of the tile's columns,
// of which `near` lie in the first; at a block of K.
struct Marks {
  int row[PARTS][2], weight[SPANS], near;
};

struct Factors {
  float row[PARTS][2], weight[WEIGHTS][SPANS];
};

// PRODUCTS sums: of so many parts, or where GATED of both weights; lane l has rows l / 4 and l / 4 + 8
// of its warp's 16, of each 8 columns 2 (l % 4) and the next.
template <int PRODUCTS> struct Sums {
  float of[PRODUCTS][HELD];
};

// At block `block` of a tile of which a lane's first row is `first`.
INLINE Marks marks_of(const Tile& tile, const Sizes& sizes, const Scales& scales, int first, int block) {
  Marks marks;
  const int blocks = (sizes.columns + BLOCK - 1) / BLOCK, of_columns = tile.column / BLOCK;
#pragma unroll
  for (int span = 0; span < SPANS; span++)  // a cluster's last CTA may have columns behind all
    marks.weight[span] = (tile.expert * blocks + min(of_columns + span, blocks - 1)) * sizes.blocks + block;
  marks.near = BLOCK - tile.column % BLOCK;
#pragma unroll
  for (int part = 0; part < PARTS; part++)
#pragma unroll
    for (int half = 0; half < 2; half++)  // rows behind all are multiplied, but written nowhere
      marks.row[part][half] = min(row_of(first, part, half), sizes.rows - 1) * scales.of_row + block * scales.of_block;
  return marks;
}

// The scales at the marks, which then go on by WAYS blocks of K.
template <int PRODUCTS> INLINE Factors read_factors(const Scales& scales, Marks& marks) {
  Factors read;
#pragma unroll
  for (int part = 0; part < (GATED ? 1 : PRODUCTS); part++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      read.row[part][half] = read_global(scales.x + marks.row[part][half]);
      marks.row[part][half] += WAYS * scales.of_block;
    }
#pragma unroll
  for (int span = 0; span < SPANS; span++) {
    read.weight[0][span] = read_global(scales.weight + marks.weight[span]);
    if (GATED) read.weight[WEIGHTS - 1][span] = read_global(scales.up + marks.weight[span]);
    marks.weight[span] += WAYS;
  }
  return read;
}

// The place is free again in all CTAs whose copies may land in it: one lane speaks for its warp.
INLINE void leave(u32 shared, int stage, int lane) {
  __syncwarp();
  if (CLUSTER == 1) {
    if (lane == 0) arrive(empty_barrier(shared, stage));
  } else if (lane < CLUSTER) {
    arrive_in(empty_barrier(shared, stage), lane);
  }
}

// Columns that surely lie in one block of a weight's: the largest that divides COLUMNS and BLOCK.
constexpr int grain_of(int a, int b) { return b ? grain_of(b, a % b) : a; }
constexpr int GRAIN = grain_of(COLUMNS, BLOCK);

INLINE void add_scaled(float (&sums)[HELD], const float (&found)[HELD], const float (&row)[2],
                       const float (&weight)[SPANS], int near) {
  float of[SPANS][2];
#pragma unroll
  for (int span = 0; span < SPANS; span++) of[span][0] = row[0] * weight[span], of[span][1] = row[1] * weight[span];
#pragma unroll
  for (int column = 0; column < COLUMNS; column += GRAIN) {
    const bool is_near = SPANS == 1 || column < near;
    const float first = is_near ? of[0][0] : of[SPANS - 1][0], second = is_near ? of[0][1] : of[SPANS - 1][1];
#pragma unroll
    for (int i = column / 2; i < (column + GRAIN) / 2; i += 4) {
      sums[i] += found[i] * first, sums[i + 1] += found[i + 1] * first;
      sums[i + 2] += found[i + 2] * second, sums[i + 3] += found[i + 3] * second;
    }
  }
}

// A part by the weights' rows at `b`, as many as `found` has columns; of one block of K.
template <int SUMS> INLINE void start_product(float (&found)[SUMS], u32 a, u32 b) {
#pragma unroll
  for (int term = 0; term < TERMS; term++)
#pragma unroll
    for (int k = 0; k < BLOCK; k += 32)
      add_e4m3_product(found, rows_operand(a + term * TERM_BYTES + k), rows_operand(b + k), term + k);
}

// Products of AT_ONCE parts or weights from `first` on, of one block of K, are on their way. Up lies behind
// gate: both are one product of twice the columns.
template <int AT_ONCE>
INLINE void start(float (&found)[AT_ONCE][HELD], u32 stage, int first, int warpgroup) {
#pragma unroll
  for (int p = 0; p < AT_ONCE; p++) hold(found[p]);
  products_begin();
  const u32 own = stage + (WAYS == 2 ? 0 : warpgroup) * PART_BYTES, weight = stage + WEIGHTS_AT;
  if constexpr (GATED && AT_ONCE == 2) {
    start_product(reinterpret_cast<float (&)[2 * HELD]>(found), own, weight);
  } else {
#pragma unroll
    for (int p = 0; p < AT_ONCE; p++)
      if (GATED) start_product(found[p], own, weight + (first + p) * WEIGHT_BYTES);
      else start_product(found[p], own + WARPGROUPS * (first + p) * PART_BYTES, weight);
  }
  products_commit();
#pragma unroll
  for (int p = 0; p < AT_ONCE; p++) hold(found[p]);
}

template <int PRODUCTS, int AT_ONCE>
INLINE void add(Sums<PRODUCTS>& sums, const float (&found)[AT_ONCE][HELD], const Factors& factors, int first, int near) {
#pragma unroll
  for (int p = 0; p < AT_ONCE; p++)
    add_scaled(sums.of[first + p], found[p], factors.row[GATED ? 0 : first + p], factors.weight[GATED ? first + p : 0], near);
}

// Where registers allow it, a block's products run while those of the block before are added; where
// warpgroups take blocks in turn, the other's do.
template <int PRODUCTS> constexpr bool OVERLAPS = WAYS == 1 && PRODUCTS * HELD <= 64;
// Else small products run together, large ones one behind another.
template <int PRODUCTS> constexpr int TOGETHER = PRODUCTS * HELD <= (GATED ? 96 : 64) ? PRODUCTS : 1;

// What a warpgroup's blocks of a tile are, from the first on.
struct Blocks {
  Place place;
  int count;
  u32 shared;
  INLINE u32 await() const {
    wait_for(full_barrier(shared, place.stage), place.parity);
    return stage_at(shared, place.stage);
  }
  INLINE void leave_for_next(int lane) {
    leave(shared, place.stage, lane);
    next();
  }
  INLINE void next() {
    place.next();
    if (WAYS == 2) place.next();
  }
};

template <int PRODUCTS>
INLINE void multiply_by_turns(Sums<PRODUCTS>& sums, Blocks at, const Scales& scales, Marks marks, int warpgroup, int lane) {
  constexpr int AT_ONCE = TOGETHER<PRODUCTS>;
  Factors factors = read_factors<PRODUCTS>(scales, marks);
#pragma unroll 1
  for (int left = at.count - 1; left >= 0; left--) {
    Factors ahead = factors;
    if (left > 0) ahead = read_factors<PRODUCTS>(scales, marks);
    const u32 stage = at.await();
#pragma unroll
    for (int first = 0; first < PRODUCTS; first += AT_ONCE) {
      float found[AT_ONCE][HELD];
      start(found, stage, first, warpgroup);
      products_wait<0>();
      if (first + AT_ONCE == PRODUCTS) at.leave_for_next(lane);
      add(sums, found, factors, first, marks.near);
    }
    factors = ahead;
  }
}

// One block's products start, then those of the block before are added.
template <int PRODUCTS>
INLINE void step(Sums<PRODUCTS>& sums, float (&found)[PRODUCTS][HELD], float (&next)[PRODUCTS][HELD], Factors& factors,
                 Blocks& at, const Scales& scales, Marks& marks, int warpgroup, int lane) {
  Blocks ahead = at;
  ahead.next();
  const Factors of_next = read_factors<PRODUCTS>(scales, marks);
  start(next, ahead.await(), 0, warpgroup);
  products_wait<1>();
  leave(at.shared, at.place.stage, lane);
  add(sums, found, factors, 0, marks.near);
  factors = of_next, at = ahead;
}

template <int PRODUCTS>
INLINE void multiply_ahead(Sums<PRODUCTS>& sums, Blocks at, const Scales& scales, Marks marks, int warpgroup, int lane) {
  float even[PRODUCTS][HELD], odd[PRODUCTS][HELD];
  Factors factors = read_factors<PRODUCTS>(scales, marks);
  start(even, at.await(), 0, warpgroup);
  int left = at.count - 1;
#pragma unroll 1
  for (; left >= 2; left -= 2) {
    step(sums, even, odd, factors, at, scales, marks, warpgroup, lane);
    step(sums, odd, even, factors, at, scales, marks, warpgroup, lane);
  }
  if (left == 1) {
    step(sums, even, odd, factors, at, scales, marks, warpgroup, lane);
    products_wait<0>();
    leave(at.shared, at.place.stage, lane);
    add(sums, odd, factors, 0, marks.near);
  } else {
    products_wait<0>();
    leave(at.shared, at.place.stage, lane);
    add(sums, even, factors, 0, marks.near);
  }
}

// The warpgroup's blocks of a tile that begins at a place of the ring.
template <int PRODUCTS>
INLINE void multiply(Sums<PRODUCTS>& sums, const Place& place, u32 shared, const Tile& tile, const Sizes& sizes,
                     const Scales& scales, int first, int warpgroup, int lane) {
#pragma unroll
  for (int p = 0; p < PRODUCTS; p++)
#pragma unroll
    for (int i = 0; i < HELD; i++) sums.of[p][i] = 0.f;
  const int own = own_block(place, warpgroup);
  const Blocks blocks{place.after(own), (sizes.blocks - own + WAYS - 1) / WAYS, shared};
  if (blocks.count == 0) return;
  const Marks marks = marks_of(tile, sizes, scales, first, own);
  if constexpr (OVERLAPS<PRODUCTS>) multiply_ahead(sums, blocks, scales, marks, warpgroup, lane);
  else multiply_by_turns(sums, blocks, scales, marks, warpgroup, lane);
}

// The sums of both ways, which the first warpgroup then has.
template <int PRODUCTS> INLINE void add_ways(Sums<PRODUCTS>& sums, u32 shared, int warpgroup) {
  const u32 mine = shared + SUMS + threadIdx.x % 128 * 4;
  if (warpgroup == 1) {
#pragma unroll
    for (int p = 0; p < PRODUCTS; p++)
#pragma unroll
      for (int i = 0; i < HELD; i++) store(mine + (p * HELD + i) * 512, sums.of[p][i]);
  }
  named_barrier(1, MULTIPLYING);
  if (warpgroup == 0) {
#pragma unroll
    for (int p = 0; p < PRODUCTS; p++)
#pragma unroll
      for (int i = 0; i < HELD; i++) sums.of[p][i] += load(mine + (p * HELD + i) * 512);
  }
  named_barrier(2, MULTIPLYING);  // the place is read
}

// Of a warpgroup without a part: it only lets the stages go.
INLINE void skip(Place place, u32 shared, int blocks, int lane) {
  for (int block = 0; block < blocks; block++, place.next()) {
    wait_for(full_barrier(shared, place.stage), place.parity);
    leave(shared, place.stage, lane);
  }
}
