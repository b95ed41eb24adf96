// Operands of products that carry scales beside e4m3 weights: rows of e4m3 with a scale for each 128
// columns, and int8 weights with a scale for each row, which is a column of the product.

#pragma once

#include "multiply.h"

namespace {

// e4m3 activations; `scales` are rows as the values are, from the first column on.
template <typename V, typename S> struct ScaledRows {
  V values;
  S scales;
  ScaledRows behind(int64_t r) const { return {values.behind(r), scales.behind(r)}; }
};

template <typename V, typename S>
Rows<float> as_f32(ScaledRows<V, S> x, int64_t rows, int64_t k, int64_t count, float *room) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < count; i += SCALED)
      widen_block(room + r * K_BLOCK + i, x.values[r] + k + i, smaller(SCALED, count - i),
                  x.scales[r][(k + i) / SCALED]);
  return {room, K_BLOCK};
}

// Tiles of int8. A column's scale multiplies its whole sum.
template <> struct Tiles<s8> {
  const s8 *first;
  int64_t tile, step;
  const float *scales; // of columns, from the first on
  Tiles from(int64_t t, int64_t k) const {
    return {first + t * tile + k * step, tile, step, scales + t * TILE};
  }
  Tiles matrix(int64_t i, int64_t num_tiles) const { return from(i * num_tiles, 0); }
  vf at(int t, int64_t k, int v) const { return load(first + t * tile + k * step + v * LANES); }
  int64_t alike(int64_t) const { return K_BLOCK; }
  vf factor(int, int64_t) const { return same(1.0f); }
  static vf times(vf x, vf) { return x; }
  vf of_sums(int64_t n) const { return load(scales + n); } // of LANES columns from n on
};

// Rows of f32 in a model that computes in bf16.
struct ListedInBf16 {
  const float *first;
  int64_t row;
  const int32_t *list;
  const float *operator[](int64_t r) const { return first + list[r] * row; }
};

template <> constexpr bool IN_INTEGERS<Rows<bf16>, s8> = true;
template <> constexpr bool IN_INTEGERS<Listed<bf16>, s8> = true;
template <> constexpr bool IN_INTEGERS<ListedInBf16, s8> = true;

template <> inline Tiles<s8> packed<s8>(void **params, int index, int64_t count) {
  return {pointer<s8>(params, index), count * TILE, TILE, pointer<float>(params, index + 1)};
}

} // namespace

#include "integers.h"
