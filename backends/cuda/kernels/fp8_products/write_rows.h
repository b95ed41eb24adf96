// Rows that four lanes hold, as bf16 or quantised by blocks. The lanes swap, so that each writes 8
// neighbours.
#pragma once
#include "layout.h"

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

constexpr int EIGHTS = COLUMNS / 8;

// Four eights of columns from `first` on in bf16, those behind the last zero; then a lane has one of them.
INLINE void pack_eights(u32 (&w)[4], const float (&v)[HELD], int first, int half, int lane) {
#pragma unroll
  for (int c = 0; c < 4; c++) {
    const int i = (first + c) % EIGHTS * 4 + 2 * half;
    w[c] = first + c < EIGHTS ? pack_bf16(v[i], v[i + 1]) : 0;
  }
  transpose_quads(w, lane);
}

// 32 columns, 4 eights of `v` from `first` on, of half 0, the lane's first row, or 1, its second: a lane's 8
// are the eight first + lane % 4. Rows lie on 16-byte borders.
INLINE void write_eights(const float (&v)[HELD], int first, int half, uint8_t* row, bool real, int lane) {
  u32 w[4];
  pack_eights(w, v, first, half, lane);
  if (real) write_global4(row + 16 * (lane & 3), w[0], w[1], w[2], w[3]);
}

// Columns from `column` on, of which `columns` exist.
INLINE void write_bf16(const float (&v)[HELD], int half, uint8_t* row, bool real, int column, int columns, int lane) {
#pragma unroll
  for (int j = 0; j < EIGHTS; j += 4) {
    u32 w[4];
    pack_eights(w, v, j, half, lane);
    const int eight = j + (lane & 3), at = column + 8 * eight;
    uint8_t* to = row + 2ll * at;
    if (!real || eight >= EIGHTS) continue;
    if (at + 8 <= columns && (u64)to % 16 == 0) {
      write_global4(to, w[0], w[1], w[2], w[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++)
        if (at + i < columns) ((uint16_t*)to)[i] = (uint16_t)(w[i / 2] >> i % 2 * 16);
    }
  }
}

// The same in f32: a lane has two neighbours of each eight.
INLINE void write_f32(const float (&v)[HELD], int half, uint8_t* row, bool real, int column, int columns, int lane) {
#pragma unroll
  for (int j = 0; j < EIGHTS; j++) {
    const int at = column + 8 * j + 2 * (lane & 3);
    uint8_t* to = row + 4ll * at;
    if (!real || at >= columns) continue;
    const float first = v[4 * j + 2 * half], second = v[4 * j + 2 * half + 1];
    if (at + 1 < columns && (u64)to % 8 == 0) {
      write_global2(to, __float_as_uint(first), __float_as_uint(second));
    } else {
      *(float*)to = first;
      if (at + 1 < columns) ((float*)to)[1] = second;
    }
  }
}

// As `fp8_terms.block_scale` has it.
template <int PLANES> INLINE float block_scale(float most) {
  const float scale = __fdiv_rn(fmaxf(most, PLANES == 1 ? 1e-4f : 1e-30f), 448.f);
  if (!POWER_OF_TWO && PLANES == 1) return scale;
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

// `v` of half 0 or 1 as one block of fp8 with its scale, in so many terms, `plane` bytes apart.
template <int PLANES>
INLINE void write_quantised(const float (&v)[HELD], int half, uint8_t* row, long long plane, float* of_scale, bool real,
                            int column, int columns, int lane) {
  float most = 0.f;
#pragma unroll
  for (int j = 0; j < HELD / 4; j++)
    if (column + 8 * j < columns) most = fmaxf(most, fmaxf(fabsf(v[4 * j + 2 * half]), fabsf(v[4 * j + 2 * half + 1])));
  most = fmaxf(most, __shfl_xor_sync(EVERY_LANE, most, 1));
  most = fmaxf(most, __shfl_xor_sync(EVERY_LANE, most, 2));
  const float scale = block_scale<PLANES>(most), inverse = __frcp_rn(scale);
  if (real && (lane & 3) == 0 && column < columns) *of_scale = scale;
#pragma unroll 1
  for (int term = 0; term < PLANES; term++)
#pragma unroll
    for (int j = 0; j < HELD / 4; j += 8) {
      u32 w[4];
#pragma unroll
      for (int c = 0; c < 4; c++) {
        const int i = 4 * (j + c) + 2 * half;
        w[c] = term_of(v[i], v[i + 1], scale, inverse, term) | term_of(v[i + 16], v[i + 17], scale, inverse, term) << 16;
      }
      write_bytes(w, row + term * plane, real, column + 8 * j, columns, lane);
    }
}
