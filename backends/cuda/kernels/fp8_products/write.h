// What a warpgroup's sums become: bf16 rows, rows of pairs, or gated columns, as bf16 or quantised by
// blocks of a row. Four lanes hold a row's 128 columns; they swap, so that each writes 8 neighbours.
#pragma once
#include "multiply.h"

struct Result {
  uint8_t* out;      // bf16 [rows or pairs, columns]; of gated experts fp8 [TERMS * slots, columns]
  float* out_scale;  // of gated experts [blocks of columns, slots]
  long long stride;  // elements from row to row
  const int* pair_of_slot;
  int real;          // rows, where not GROUPED
};

// Word c of lane q of a quad becomes word q of lane c.
INLINE void transpose_quads(u32 (&w)[4], int lane) {
  const bool odd = lane & 1, high = lane & 2;
  u32 x = swap_lanes(odd ? w[0] : w[1], 1), y = swap_lanes(odd ? w[2] : w[3], 1);
  if (odd) w[0] = x, w[2] = y;
  else w[1] = x, w[3] = y;
  x = swap_lanes(high ? w[0] : w[2], 2), y = swap_lanes(high ? w[1] : w[3], 2);
  if (high) w[0] = x, w[1] = y;
  else w[2] = x, w[3] = y;
}

// `half` 0: the lane's first row, 1: its second; columns from `column` on, of which `columns` exist.
INLINE void write_bf16(const float (&v)[64], int half, uint8_t* row, bool real, int column, int columns, int lane) {
#pragma unroll
  for (int j = 0; j < 4; j++) {
    u32 w[4];
#pragma unroll
    for (int c = 0; c < 4; c++) w[c] = pack_bf16(v[(4 * j + c) * 4 + 2 * half], v[(4 * j + c) * 4 + 2 * half + 1]);
    transpose_quads(w, lane);
    const int at = column + 32 * j + 8 * (lane & 3);
    uint8_t* to = row + 2ll * at;
    if (!real) continue;
    if (at + 8 <= columns && (u64)to % 16 == 0) {
      write_global4(to, w[0], w[1], w[2], w[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++)
        if (at + i < columns) ((uint16_t*)to)[i] = (uint16_t)(w[i / 2] >> i % 2 * 16);
    }
  }
}

// To 2^-21, without the branches of an exact division: 64 of these stand behind each tile.
INLINE float gated(float gate, float up) { return __fdividef(gate, 1.f + __expf(-gate)) * up; }

// As `fp8_terms.block_scale` has it.
INLINE float block_scale(float most) {
  const float scale = __fdiv_rn(fmaxf(most, TERMS == 1 ? 1e-4f : 1e-30f), 448.f);
  if (!POWER_OF_TWO && TERMS == 1) return scale;
  return __uint_as_float((__float_as_uint(scale) + 0x7FFFFFu) & 0x7F800000u);
}

// 32 bytes of a row by a quad: a lane's words hold columns 2q, 2q + 1 of eights j and j + 4.
INLINE void write_bytes(u32 (&w)[4], uint8_t* row, bool real, int column, int columns, int lane) {
  transpose_quads(w, lane);
  const int at = column + 8 * (lane & 3);
  if (real && at < columns) write_global2(row + at, __byte_perm(w[0], w[1], 0x5410), __byte_perm(w[2], w[3], 0x5410));
  if (real && at + 32 < columns) write_global2(row + at + 32, __byte_perm(w[0], w[1], 0x7632), __byte_perm(w[2], w[3], 0x7632));
}

// x / scale to the nearest, without the branches for what cannot be here: quotients are at most 448.
INLINE float quotient(float x, float scale, float inverse) {
  const float near = x * inverse;
  return fmaf(fmaf(-near, scale, x), inverse, near);
}

// Two numbers over their scale in fp8, or what that leaves of them.
INLINE u32 term_of(float x, float y, float scale, float inverse, int term) {
  x = quotient(x, scale, inverse), y = quotient(y, scale, inverse);
  const u32 high = pack_e4m3(x, y), wide = widen_e4m3_pair(high);
  return term ? pack_e4m3(x - low_f16(wide), y - high_f16(wide)) : high;
}

// `v` of half 0 or 1 as one block of fp8 with its scale, in TERMS terms.
INLINE void write_quantised(const float (&v)[64], int half, const Result& result, int slot, int slots, int column,
                            int columns, int lane) {
  float most = 0.f;
#pragma unroll
  for (int j = 0; j < 16; j++)
    if (column + 8 * j < columns) most = fmaxf(most, fmaxf(fabsf(v[4 * j + 2 * half]), fabsf(v[4 * j + 2 * half + 1])));
  most = fmaxf(most, __shfl_xor_sync(EVERY_LANE, most, 1));
  most = fmaxf(most, __shfl_xor_sync(EVERY_LANE, most, 2));
  const float scale = block_scale(most), inverse = __frcp_rn(scale);
  const bool real = result.pair_of_slot[slot] >= 0;
  if (real && (lane & 3) == 0 && column < columns) result.out_scale[(long long)(column / BLOCK) * slots + slot] = scale;
#pragma unroll 1
  for (int term = 0; term < TERMS; term++) {
    uint8_t* row = result.out + (slot + term * (long long)slots) * result.stride;
#pragma unroll
    for (int j = 0; j < 16; j += 8) {
      u32 w[4];
#pragma unroll
      for (int c = 0; c < 4; c++) {
        const int i = 4 * (j + c) + 2 * half;
        w[c] = term_of(v[i], v[i + 1], scale, inverse, term) | term_of(v[i + 16], v[i + 17], scale, inverse, term) << 16;
      }
      write_bytes(w, row, real, column + 8 * j, columns, lane);
    }
  }
}

template <int PRODUCTS>
INLINE void write_tile(Sums<PRODUCTS>& sums, const Result& result, const Tile& tile, const Sizes& sizes,
                       int first, int lane) {
  const int column = tile.column_block * BLOCK;
  if (GATED) {
    auto &gate = sums.of[0], &up = sums.of[PRODUCTS - 1];
#pragma unroll
    for (int i = 0; i < 64; i++)  // bf16 activations meet in bf16, experts' in f32, as the types say
      gate[i] = GROUPED ? gated(gate[i], up[i]) : gated(as_bf16(gate[i]), as_bf16(up[i]));
  }
#pragma unroll
  for (int p = 0; p < (GATED ? 1 : PRODUCTS); p++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = row_of(first, p, half);
      if (GATED && GROUPED) {
        write_quantised(sums.of[p], half, result, row, sizes.rows, column, sizes.columns, lane);
        continue;
      }
      const int place = GROUPED ? result.pair_of_slot[row] : row;
      const bool real = GROUPED ? place >= 0 : row < result.real;
      uint8_t* to = result.out + 2 * (real ? place : 0) * result.stride;
      write_bf16(sums.of[p], half, to, real, column, sizes.columns, lane);
    }
}
