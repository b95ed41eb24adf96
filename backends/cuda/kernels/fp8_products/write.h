// What a warpgroup's sums become: bf16 rows, rows of pairs, or gated columns, as bf16 or quantised by
// blocks of a row.
#pragma once
#include "multiply.h"
#include "write_rows.h"

struct Result {
  uint8_t* out;      // bf16, or f32 where WIDE [rows or pairs, columns]; of gated experts fp8 [TERMS * slots, columns]
  float* out_scale;  // of gated experts [blocks of columns, slots]
  long long stride;  // elements from row to row
  const int* pair_of_slot;
  int real;          // rows, where not GROUPED
};

// To 2^-21, without the branches of an exact division: 64 of these stand behind each tile.
INLINE float gated(float gate, float up) { return __fdividef(gate, 1.f + __expf(-gate)) * up; }

template <int PRODUCTS>
INLINE void write_tile(Sums<PRODUCTS>& sums, const Result& result, const Tile& tile, const Sizes& sizes,
                       int first, int lane) {
  if (GATED) {
    auto &gate = sums.of[0], &up = sums.of[PRODUCTS - 1];
#pragma unroll
    for (int i = 0; i < HELD; i++)  // bf16 activations meet in bf16, experts' in f32, as the types say
      gate[i] = GROUPED ? gated(gate[i], up[i]) : gated(as_bf16(gate[i]), as_bf16(up[i]));
  }
#pragma unroll
  for (int p = 0; p < (GATED ? 1 : PRODUCTS); p++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = row_of(first, p, half);
      if (GATED && GROUPED) {
        static_assert(!GATED || !GROUPED || COLUMNS == BLOCK, "a block of a row under one scale is a tile's");
        write_quantised<TERMS>(sums.of[p], half, result.out + row * result.stride, sizes.rows * result.stride,
                               result.out_scale + (long long)(tile.column / BLOCK) * sizes.rows + row,
                               result.pair_of_slot[row] >= 0, tile.column, sizes.columns, lane);
        continue;
      }
      const int place = GROUPED ? result.pair_of_slot[row] : row;
      const bool real = GROUPED ? place >= 0 : row < result.real;
      uint8_t* to = result.out + (WIDE ? 4 : 2) * (real ? place : 0) * result.stride;
      if (WIDE) write_f32(sums.of[p], half, to, real, tile.column, sizes.columns, lane);
      else write_bf16(sums.of[p], half, to, real, tile.column, sizes.columns, lane);
    }
}
