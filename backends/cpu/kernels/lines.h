// A weight by its rows, as it is stored.

#pragma once

#include "multiply.h"
#include "team.h"

namespace {

// Rows of a weight, `count` numbers each.
template <typename W> struct Lines {
  const W *first;
  int64_t count;
  Lines from(int64_t n) const { return {first + n * count, count}; }
  Rows<W> rows() const { return {first, count}; } // of a product
  vf at(int64_t n, int64_t i) const { return load(first + n * count + i); }
  float one(int64_t n, int64_t i) const { return wide(first[n * count + i]); }
};

// The same of e4m3 with a scale for each 128 rows and columns.
template <> struct Lines<f8> {
  const f8 *first;
  int64_t count;
  const float *scales;
  int64_t row; // of the first line, where scales begin
  Lines from(int64_t n) const { return {first + n * count, count, scales, row + n}; }
  Lines rows() const { return *this; }
  float scale(int64_t n, int64_t i) const {
    return F8_FACTOR * scales[(row + n) / SCALED * parts(count, SCALED) + i / SCALED];
  }
  vf at(int64_t n, int64_t i) const { return load(first + n * count + i) * same(scale(n, i)); }
  float one(int64_t n, int64_t i) const { return wide(first[n * count + i]) * scale(n, i); }
};

// The same of int8 with a scale for each row, which multiplies the row's sums.
template <> struct Lines<s8> {
  const s8 *first;
  int64_t count;
  const float *scales; // from the first line on
  Lines from(int64_t n) const { return {first + n * count, count, scales + n}; }
  Rows<s8> rows() const { return {first, count}; }
  vf at(int64_t n, int64_t i) const { return load(first + n * count + i); }
  float one(int64_t n, int64_t i) const { return wide(first[n * count + i]); }
  float of_sums(int64_t n) const { return scales[n]; }
};

// As rows of a product, so many of their numbers in f32.
inline Rows<float> as_f32(Lines<f8> x, int64_t rows, int64_t k, int64_t count, float *room) {
  for (int64_t r = 0; r < rows; r++) {
    float *to = room + r * K_BLOCK;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
      store(to + i, x.at(r, k + i));
    for (; i < count; i++)
      to[i] = x.one(r, k + i);
  }
  return {room, K_BLOCK};
}

// A weight's lines of so many numbers and, of 8 bits, its scales: parameters `index` and on.
template <typename W> inline Lines<W> lines_of(void **params, int index, int64_t latent) {
  return {pointer<W>(params, index), latent};
}
template <> inline Lines<f8> lines_of<f8>(void **params, int index, int64_t latent) {
  return {pointer<f8>(params, index), latent, pointer<float>(params, index + 1), 0};
}
template <> inline Lines<s8> lines_of<s8>(void **params, int index, int64_t latent) {
  return {pointer<s8>(params, index), latent, pointer<float>(params, index + 1)};
}

} // namespace
