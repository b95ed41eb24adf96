// Products of bf16 rows with int8 weights in whole numbers. 128 places of a row become numbers of 16
// bits with one scale; 128 products of theirs with int8 fit into 32 bits, so a sum is exact in any
// order, on any instruction set. Where one place stands out so far that the others would lose more
// than bf16 has rounded off (`PEAK`), or is not finite, the 128 meet their weights in f32.

#pragma once

#include "scaled.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

typedef int16_t vw __attribute__((vector_size(4 * LANES), aligned(2), may_alias)); // pairs of places

const float MOST_WHOLE = 32767.0f;
const int64_t WHOLE_ROW = K_BLOCK + 2; // the last pair of a row may have one place

// The largest of a block to the mean of its magnitudes: half a step is then 2^-11 of that mean, and
// bf16 rounds off up to 2^-9 of each number.
const float PEAK = 32.0f;
const float IN_F32 = -1.0f; // no scale

// One block of a row and its scale, or zeros and IN_F32.
template <typename T> inline float whole_block(int16_t *to, const T *x, int64_t count) {
  float amax = block_amax(x, count), total = 0.0f;
  vf totals = same(0.0f);
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    totals += (vf)((vu)load(x + i) & 0x7fffffff);
  total = sum_of(totals);
  for (; i < count; i++)
    total += __builtin_fabsf(wide(x[i]));
  bool even = amax * (float)count <= PEAK * total && amax < 1e37f; // else a sum may be infinite
  // 1e-30: what is smaller than this is 0, whose inverse would be no number
  float factor = even && amax > 1e-30f ? MOST_WHOLE / amax : 0.0f;
  const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number
  const int32_t of_magic = 0x4b400000;
  for (i = 0; even && i + LANES <= count; i += LANES)
    *(vs *)(to + i) =
        __builtin_convertvector((vi)(load(x + i) * same(factor) + same(magic)) - of_magic, vs);
  for (; i < count; i++) {
    float moved = (even ? wide(x[i]) : 0.0f) * factor + magic;
    to[i] = (int16_t)(__builtin_bit_cast(int32_t, moved) - of_magic);
  }
  to[count] = 0; // the pair of the last, where it has none
  return even ? amax / MOST_WHOLE : IN_F32;
}

// Rows of so many blocks, and the scale of each.
struct WholeRows {
  const int16_t *first;
  const float *scales;
  WholeRows behind(int64_t r) const { return {first + r * WHOLE_ROW, scales + r}; }
};

// What pairs of places of x and of LANES columns add to their sums.
inline vi dot(vw w, vw x) {
#if defined(__AVX512BW__)
  return (vi)_mm512_madd_epi16((__m512i)w, (__m512i)x);
#elif defined(__AVX2__)
  return (vi)_mm256_madd_epi16((__m256i)w, (__m256i)x);
#else
  return ((vi)w << 16 >> 16) * ((vi)x << 16 >> 16) + ((vi)w >> 16) * ((vi)x >> 16);
#endif
}

// Weights as they are stored: places k and k + 1 of LANES columns, and k alone.
struct Bytes {
  const s8 *first;
  int64_t tile;
  Bytes from(int64_t t, int64_t k) const { return {first + t * tile + k * TILE, tile}; }
  static const bool WHOLE_PAIRS = false;
  vw pairs(int t, int64_t k, int v) const {
    const s8 *at = first + t * tile + k * TILE + v * LANES;
#if LANES == 16
    typedef int8_t both __attribute__((vector_size(32), aligned(1), may_alias));
    vw words = __builtin_convertvector(*(const both *)at, vw);
    return __builtin_shufflevector(words, words, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22,
                                   7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                   31);
#else
    vsb one = *(const vsb *)at, other = *(const vsb *)(at + TILE);
#if LANES == 8
    return __builtin_convertvector(__builtin_shufflevector(one, other, 0, 8, 1, 9, 2, 10, 3, 11, 4,
                                                           12, 5, 13, 6, 14, 7, 15), vw);
#else
    return __builtin_convertvector(__builtin_shufflevector(one, other, 0, 4, 1, 5, 2, 6, 3, 7), vw);
#endif
#endif
  }
  vw last(int t, int64_t k, int v) const { // its pair is 0
    vsb one = *(const vsb *)(first + t * tile + k * TILE + v * LANES);
    return (vw)(__builtin_convertvector(one, vi) & 0xffff);
  }
};

// The same as pairs of 16 bits, for many rows.
struct Words {
  const int16_t *first;
  int64_t tile;
  Words from(int64_t t, int64_t k) const { return {first + t * tile + k * TILE, tile}; }
  static const bool WHOLE_PAIRS = true;
  vw pairs(int t, int64_t k, int v) const {
    return *(const vw *)(first + t * tile + k * TILE + 2 * v * LANES);
  }
};

inline Words as_words(Bytes w, int64_t count, int64_t num_tiles, int16_t *room) {
  int64_t tile = parts(count, 2) * 2 * TILE;
  for (int64_t t = 0; t < num_tiles; t++)
    for (int64_t k = 0; k < count; k += 2)
      for (int v = 0; v < PER_TILE; v++) {
        Bytes own = w.from(t, 0);
        *(vw *)(room + t * tile + k * TILE + 2 * v * LANES) =
            k + 1 < count ? own.pairs(0, k, v) : own.last(0, k, v);
      }
  return {room, tile};
}

template <int R, int V, typename W>
inline __attribute__((always_inline)) void block(WholeRows x, W w, int64_t count, Places<float> out,
                                                 int64_t column, bool adds) {
  vi sums[R][V * PER_TILE];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < V * PER_TILE; v++)
      sums[r][v] = vi{};
  auto add = [&](int64_t k, auto held_of) __attribute__((always_inline)) {
    vw held[V * PER_TILE];
#pragma GCC unroll 16
    for (int v = 0; v < V * PER_TILE; v++)
      held[v] = held_of(v / PER_TILE, v % PER_TILE);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      int32_t both;
      __builtin_memcpy(&both, x.first + r * WHOLE_ROW + k, sizeof both);
      vw value = (vw)(both - vi{});
#pragma GCC unroll 16
      for (int v = 0; v < V * PER_TILE; v++)
        sums[r][v] += dot(held[v], value);
    }
  };
  int64_t whole = W::WHOLE_PAIRS ? count : count & ~1;
  for (int64_t k = 0; k < whole; k += 2)
    add(k, [&](int t, int v) { return w.pairs(t, k, v); });
  if constexpr (!W::WHOLE_PAIRS)
    if (whole < count)
      add(whole, [&](int t, int v) { return w.last(t, whole, v); });
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < V * PER_TILE; v++) {
      vf *place = (vf *)(out[r] + column + v * LANES);
      vf sum = __builtin_convertvector(sums[r][v], vf) * same(x.scales[r]);
      *place = adds ? *place + sum : sum;
    }
}

template <typename X, typename W>
void multiply_integers(X x, int64_t rows, Tiles<W> w, int64_t count, Places<float> out,
                       int64_t num_tiles, Room *room, bool adds) {
  int16_t *whole = (int16_t *)room->x;
  float *scales = room->x + ROW_BLOCK * K_BLOCK, *one = scales + ROW_BLOCK;
  for (int64_t k = 0; k < count; k += K_BLOCK) {
    int64_t held = smaller(K_BLOCK, count - k);
    for (int64_t r = 0; r < rows; r++)
      scales[r] = whole_block(whole + r * WHOLE_ROW, x[r] + k, held);
    WholeRows from = {whole, scales};
    Bytes here = {w.first + k * TILE, w.tile};
    if (rows > ROWS_AT_ONCE)
      all_rows(from, rows, as_words(here, held, num_tiles, (int16_t *)room->w), held, out,
               num_tiles, adds || k > 0);
    else
      all_rows(from, rows, here, held, out, num_tiles, adds || k > 0);
    for (int64_t r = 0; r < rows; r++)
      if (scales[r] == IN_F32) { // to what its zeros gave
        copy(one, x[r] + k, held);
        all_rows(Rows<float>{one, 0}, 1, w.from(0, k), held, out.behind(r), num_tiles, true);
      }
  }
}

} // namespace
