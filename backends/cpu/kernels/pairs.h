// Products of bf16 rows by the processor's own bf16 instructions: two numbers of a sum at a time, in
// f32. A weight's rows are laid in pairs first where many rows read them. A sum has one order for any
// number of rows, another one than where these instructions are missing.

#pragma once

#include "multiply.h"

#if defined(__AVX512BF16__)

#include <immintrin.h>

namespace {

const int64_t PAIR_BLOCK = 512; // of a sum, before it is added to those before it
const int64_t STEP = 32;        // numbers of it that one instruction takes at most
const int64_t PART = 32;        // rows and columns of what is stored before it is added

typedef uint16_t vpair __attribute__((vector_size(64), aligned(2), may_alias));
typedef uint32_t vword __attribute__((vector_size(64), aligned(4), may_alias));

inline void put(float *to, vf sum, vf factor, bool adds) {
  store(to, adds ? load(to) + sum * factor : sum * factor);
}

// Two rows of a tile of 16 columns, those of a column together.
inline vpair paired(vh one, vh other) {
  return __builtin_shufflevector(one, other, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// A row of a tile as bf16, without its scale: e4m3 has fewer bits.
inline vh narrow(const bf16 *x) { return *(const vh *)x; }
inline vh narrow(const f8 *x) { return __builtin_convertvector((vu)load(x) >> 16, vh); }

// Tiles [num_tiles][padded / 2][16] of pairs, 0 behind `count`.
template <typename W>
void pair_tiles(Tiles<W> w, int64_t count, int64_t padded, int64_t num_tiles, vpair *to) {
  for (int64_t t = 0; t < num_tiles; t++) {
    const W *from = w.first + t * w.tile;
    int64_t k = 0;
    for (; k + 2 <= count; k += 2)
      *to++ = paired(narrow(from + k * w.step), narrow(from + (k + 1) * w.step));
    if (k < count) {
      *to++ = paired(narrow(from + k * w.step), vh{});
      k += 2;
    }
    for (; k < padded; k += 2)
      *to++ = vpair{};
  }
}

inline void as_bf16(bf16 *to, const bf16 *from, int64_t count) {
  __builtin_memcpy(to, from, count * sizeof(bf16));
}
inline void as_bf16(bf16 *to, const s8 *from, int64_t count) { copy(to, from, count); }

// Rows [.., PAIR_BLOCK], 0 behind `count` and in the rows that fill up a tile of 16.
template <typename X>
void rows_of(X x, int64_t rows, int64_t count, int64_t padded, bf16 *to) {
  for (int64_t r = 0; r < parts(rows, TILE) * TILE; r++, to += PAIR_BLOCK) {
    int64_t held = r < rows ? count : 0;
    if (held)
      as_bf16(to, x[r], held);
    for (int64_t i = held; i < padded; i++)
      to[i] = {0};
  }
}

#if defined(__AMX_BF16__)

struct TileShapes {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};
alignas(64) const TileShapes SHAPES = {
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// Up to 32 rows times up to 2 tiles of columns.
inline void part_of(const bf16 *x, bool more_rows, const vpair *w, bool more_columns,
                    int64_t padded, float *part) {
  const int64_t x_row = PAIR_BLOCK * sizeof(bf16), line = sizeof(vpair);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const vpair *next = w + padded / 2;
  const bf16 *below = x + TILE * PAIR_BLOCK;
  for (int64_t k = 0; k < padded; k += STEP) {
    _tile_loadd(4, x + k, x_row);
    _tile_loadd(6, w + k / 2, line);
    _tile_dpbf16ps(0, 4, 6);
    if (more_columns) {
      _tile_loadd(7, next + k / 2, line);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (more_rows) {
      _tile_loadd(5, below + k, x_row);
      _tile_dpbf16ps(2, 5, 6);
      if (more_columns)
        _tile_dpbf16ps(3, 5, 7);
    }
  }
  const int64_t row = PART * sizeof(float);
  _tile_stored(0, part, row);
  _tile_stored(1, part + TILE, row);
  _tile_stored(2, part + TILE * PART, row);
  _tile_stored(3, part + TILE * PART + TILE, row);
}

inline void all_pairs(const bf16 *x, int64_t rows, const vpair *w, int64_t padded,
                      const vf *factors, Places<float> out, int64_t num_tiles, bool adds) {
  alignas(64) float part[PART * PART];
  for (int64_t r = 0; r < rows; r += PART)
    for (int64_t t = 0; t < num_tiles; t += 2) {
      int64_t held = smaller(PART, rows - r), here = smaller(2, num_tiles - t);
      part_of(x + r * PAIR_BLOCK, held > TILE, w + t * padded / 2, here > 1, padded, part);
      for (int64_t i = 0; i < held; i++)
        for (int64_t j = 0; j < here; j++)
          put(out[r + i] + (t + j) * TILE, load(part + i * PART + j * TILE), factors[t + j], adds);
    }
}

// Few rows, by products of f32: a tile's sums are of the even numbers and of the odd ones, 16 of each
// from 0 on, and so are these.
template <int R, int V, typename W>
inline __attribute__((always_inline)) void
few_of(const float *x, Tiles<W> w, int64_t count, const vf *factors, Places<float> out,
       int64_t column, bool adds) {
  vf sums[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int t = 0; t < V; t++)
      sums[r][t] = same(0.0f);
  for (int64_t k = 0; k < count;) {
    vf both[2][R][V];
#pragma GCC unroll 16
    for (int i = 0; i < 2 * R * V; i++)
      both[i / (R * V)][i / V % R][i % V] = same(0.0f);
    int64_t end = smaller(k + STEP, count);
    for (; k < end; k += 2)
#pragma GCC unroll 2
      for (int side = 0; side < 2; side++) {
        if (k + side == end)
          break;
        vf held[V];
#pragma GCC unroll 16
        for (int t = 0; t < V; t++)
          held[t] = w.at(t, k + side, 0);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
          vf value = same(x[r * PAIR_BLOCK + k + side]);
#pragma GCC unroll 16
          for (int t = 0; t < V; t++)
            both[side][r][t] += value * held[t];
        }
      }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
      for (int t = 0; t < V; t++)
        sums[r][t] += both[0][r][t] + both[1][r][t];
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int t = 0; t < V; t++)
      put(out[r] + column + t * TILE, sums[r][t], factors[t], adds);
}

template <int R, int V, typename W>
void few_tiles(const float *x, Tiles<W> w, int64_t count, const vf *factors, Places<float> out,
               int64_t num_tiles, bool adds) {
  int64_t t = 0;
  for (; t + V <= num_tiles; t += V)
    few_of<R, V>(x, w.from(t, 0), count, factors + t, out, t * TILE, adds);
  for (; t < num_tiles; t++)
    few_of<R, 1>(x, w.from(t, 0), count, factors + t, out, t * TILE, adds);
}

template <typename X, typename W>
void few_pairs(X x, int64_t rows, Tiles<W> w, int64_t count, int64_t, const vf *factors,
               Places<float> out, int64_t num_tiles, float *room, bool adds) {
  for (int64_t r = 0; r < rows; r++)
    copy(room + r * PAIR_BLOCK, x[r], count);
  switch (rows) {
  case 1: few_tiles<1, 4>(room, w, count, factors, out, num_tiles, adds); break;
  case 2: few_tiles<2, 4>(room, w, count, factors, out, num_tiles, adds); break;
  case 3: few_tiles<3, 2>(room, w, count, factors, out, num_tiles, adds); break;
  case 4: few_tiles<4, 2>(room, w, count, factors, out, num_tiles, adds); break;
  case 5: few_tiles<5, 1>(room, w, count, factors, out, num_tiles, adds); break;
  default: few_tiles<6, 1>(room, w, count, factors, out, num_tiles, adds); break;
  }
}

inline void begin_pairs() { _tile_loadconfig(&SHAPES); }
inline void end_pairs() { _tile_release(); }

#else

// Pairs as they were made, and as a weight is stored.
struct Made {
  const vpair *w;
  int64_t tile;
  Made from(int64_t t) const { return {w + t * tile, tile}; }
  vpair at(int t, int64_t k) const { return w[t * tile + k]; }
};
template <typename W> struct Stored {
  Tiles<W> w;
  int64_t count;
  Stored from(int64_t t) const { return {w.from(t, 0), count}; }
  vpair at(int t, int64_t k) const {
    const W *from = w.first + t * w.tile + 2 * k * w.step;
    return paired(narrow(from), 2 * k + 1 < count ? narrow(from + w.step) : vh{});
  }
};

// R rows times V tiles of columns.
template <int R, int V, typename P>
inline __attribute__((always_inline)) void part_of(const bf16 *x, P w, int64_t pairs,
                                                   const vf *factors, Places<float> out,
                                                   int64_t column, bool adds) {
  __m512 sums[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int t = 0; t < V; t++)
      sums[r][t] = _mm512_setzero_ps();
  for (int64_t k = 0; k < pairs; k++) {
    __m512bh held[V];
#pragma GCC unroll 16
    for (int t = 0; t < V; t++)
      held[t] = (__m512bh)w.at(t, k);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      uint32_t pair;
      __builtin_memcpy(&pair, x + r * PAIR_BLOCK + 2 * k, sizeof(pair));
      __m512bh values = (__m512bh)(pair - vword{});
#pragma GCC unroll 16
      for (int t = 0; t < V; t++)
        sums[r][t] = _mm512_dpbf16_ps(sums[r][t], values, held[t]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int t = 0; t < V; t++)
      put(out[r] + column + t * TILE, (vf)sums[r][t], factors[t], adds);
}

template <int R, typename P>
void tiles_of(const bf16 *x, P w, int64_t pairs, const vf *factors, Places<float> out,
              int64_t num_tiles, bool adds) {
  int64_t t = 0;
  for (; t + 4 <= num_tiles; t += 4)
    part_of<R, 4>(x, w.from(t), pairs, factors + t, out, t * TILE, adds);
  for (; t < num_tiles; t++)
    part_of<R, 1>(x, w.from(t), pairs, factors + t, out, t * TILE, adds);
}

template <typename P>
void rows_at_once(const bf16 *x, int64_t rows, P w, int64_t pairs, const vf *factors,
                  Places<float> out, int64_t num_tiles, bool adds) {
  switch (rows) {
  case 1: tiles_of<1>(x, w, pairs, factors, out, num_tiles, adds); break;
  case 2: tiles_of<2>(x, w, pairs, factors, out, num_tiles, adds); break;
  case 3: tiles_of<3>(x, w, pairs, factors, out, num_tiles, adds); break;
  case 4: tiles_of<4>(x, w, pairs, factors, out, num_tiles, adds); break;
  case 5: tiles_of<5>(x, w, pairs, factors, out, num_tiles, adds); break;
  default: tiles_of<6>(x, w, pairs, factors, out, num_tiles, adds); break;
  }
}

inline void all_pairs(const bf16 *x, int64_t rows, const vpair *w, int64_t padded,
                      const vf *factors, Places<float> out, int64_t num_tiles, bool adds) {
  for (int64_t r = 0; r < rows; r += ROWS_AT_ONCE)
    rows_at_once(x + r * PAIR_BLOCK, smaller(ROWS_AT_ONCE, rows - r), Made{w, padded / 2},
                 padded / 2, factors, out.behind(r), num_tiles, adds);
}

template <typename X, typename W>
void few_pairs(X x, int64_t rows, Tiles<W> w, int64_t count, int64_t padded, const vf *factors,
               Places<float> out, int64_t num_tiles, float *room, bool adds) {
  bf16 *from = (bf16 *)room;
  rows_of(x, rows, count, padded, from);
  rows_at_once(from, rows, Stored<W>{w, count}, parts(count, 2), factors, out, num_tiles, adds);
}

inline void begin_pairs() {}
inline void end_pairs() {}

#endif

// As `multiply`.
template <typename X, typename W>
void multiply_pairs(X x, int64_t rows, Tiles<W> w, int64_t count, Places<float> out,
                    int64_t num_tiles, Room *room, bool adds) {
  static_assert(sizeof(room->x) >= ROW_BLOCK * PAIR_BLOCK * sizeof(bf16));
  static_assert(sizeof(room->w) >= GROUP * TILE * PAIR_BLOCK * sizeof(bf16));
  bf16 *from = (bf16 *)room->x;
  vpair *made = (vpair *)room->w;
  bool few = rows <= ROWS_AT_ONCE;
  if (!few)
    begin_pairs();
  for (int64_t k = 0; k < count;) {
    int64_t held = smaller(smaller(PAIR_BLOCK, w.alike(k)), count - k);
    int64_t padded = parts(held, STEP) * STEP;
    Tiles<W> here = w.from(0, k);
    vf factors[GROUP];
    for (int64_t t = 0; t < num_tiles; t++)
      factors[t] = here.factor((int)t, 0);
    if (few)
      few_pairs(x.at(k), rows, here, held, padded, factors, out, num_tiles, room->x, adds || k > 0);
    else {
      rows_of(x.at(k), rows, held, padded, from);
      pair_tiles(here, held, padded, num_tiles, made);
      all_pairs(from, rows, made, padded, factors, out, num_tiles, adds || k > 0);
    }
    k += held;
  }
  if (!few)
    end_pairs();
}

} // namespace

#endif
