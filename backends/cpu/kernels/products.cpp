// Products of rows with stored weights, in f32. A weight [N, K] lies as [N / 16][K][16]: what one
// row reads of it is one stream, and a column's sum has one order whatever rows stand beside it.

#pragma once

#include "team.h"
#include "vector_math.h"

namespace {

const int64_t TILE = 16;     // columns that lie together
const int64_t GROUP = 4;     // tiles of a chunk
const int64_t K_BLOCK = 512; // of a sum, before it is added to those before it
const int64_t ROW_BLOCK = 48;

// Rows that lie one behind the other.
struct Rows {
  const float *first;
  int64_t row;
  const float *operator[](int64_t r) const { return first + r * row; }
  Rows behind(int64_t r) const { return {first + r * row, row}; }
};

// Rows of a list, as those that chose an expert.
struct Listed {
  const float *first;
  int64_t row;
  const int32_t *list;
  const float *operator[](int64_t r) const { return first + list[r] * row; }
  Listed behind(int64_t r) const { return {first, row, list + r}; }
};

// Where a product's rows go: those of `list`, where there is one.
struct Places {
  float *first;
  int64_t row;
  const int32_t *list;
  float *operator[](int64_t r) const { return first + (list ? list[r] : r) * row; }
  Places behind(int64_t r) const {
    return list ? Places{first, row, list + r} : Places{first + r * row, row, nullptr};
  }
};

const int PER_TILE = TILE / LANES; // vectors

// out[r][16 v ...] (+)= x[r] . w for R rows and V tiles, over k of a block. The weight's rows lie
// `step` floats apart, its tiles `w_tile`.
template <int R, int V, typename X>
inline __attribute__((always_inline)) void block(X x, int64_t k0, const float *w, int64_t w_tile,
                                                 int64_t step, int64_t count, Places out,
                                                 int64_t column, bool adds) {
  const float *from[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
    from[r] = x[r] + k0;
  vf sums[R][V * PER_TILE];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < V * PER_TILE; v++)
      sums[r][v] = same(0.0f);
  for (int64_t k = 0; k < count; k++) {
    vf column[V * PER_TILE];
#pragma GCC unroll 16
    for (int v = 0; v < V * PER_TILE; v++)
      column[v] = *(const vf *)(w + v / PER_TILE * w_tile + k * step + v % PER_TILE * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      vf value = same(from[r][k]);
#pragma GCC unroll 16
      for (int v = 0; v < V * PER_TILE; v++)
        sums[r][v] += value * column[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < V * PER_TILE; v++) {
      vf *place = (vf *)(out[r] + column + v * LANES);
      *place = adds ? *place + sums[r][v] : sums[r][v];
    }
}

template <int R, int V, typename X>
void tiles(X x, const float *w, int64_t w_tile, int64_t step, int64_t count, Places out,
           int64_t num_tiles) {
  for (int64_t k = 0; k < count; k += K_BLOCK) {
    int64_t held = smaller(K_BLOCK, count - k);
    int64_t t = 0;
    for (; t + V <= num_tiles; t += V)
      block<R, V>(x, k, w + t * w_tile + k * step, w_tile, step, held, out, t * TILE, k > 0);
    for (; t < num_tiles; t++)
      block<R, 1>(x, k, w + t * w_tile + k * step, w_tile, step, held, out, t * TILE, k > 0);
  }
}

// out [rows, 16 tiles] = x [rows, count] . w: tiles `w_tile` apart, rows in them `step`.
template <typename X>
void multiply(X x, int64_t rows, const float *w, int64_t w_tile, int64_t step, int64_t count,
              Places out, int64_t num_tiles) {
  for (int64_t r = 0; r < rows;) {
    X from = x.behind(r);
    Places to = out.behind(r);
    // As many sums as registers hold: twice the tiles where a vector is one.
    const int M = 2 / PER_TILE;
    switch (smaller(rows - r, 6)) {
    case 1: tiles<1, 4>(from, w, w_tile, step, count, to, num_tiles); r += 1; break;
    case 2: tiles<2, 2 * M>(from, w, w_tile, step, count, to, num_tiles); r += 2; break;
    case 3: tiles<3, 2 * M>(from, w, w_tile, step, count, to, num_tiles); r += 3; break;
    case 4: tiles<4, 2 * M>(from, w, w_tile, step, count, to, num_tiles); r += 4; break;
    case 5: tiles<5, 2 * M>(from, w, w_tile, step, count, to, num_tiles); r += 5; break;
    default: tiles<6, 2 * M>(from, w, w_tile, step, count, to, num_tiles); r += 6; break;
    }
  }
}

// The same of a packed weight [tiles][count][16].
template <typename X>
void multiply_packed(X x, int64_t rows, const float *w, int64_t count, Places out,
                     int64_t num_tiles) {
  multiply(x, rows, w, count * TILE, TILE, count, out, num_tiles);
}

// silu(gate) * up, of rows that lie `wide` apart.
inline void gated(const float *gate, const float *up, int64_t wide, int64_t rows, int64_t columns,
                  Places out, int64_t column) {
  for (int64_t r = 0; r < rows; r++) {
    float *to = out[r] + column;
    for (int64_t n = 0; n < columns; n += LANES) {
      vf made = silu(*(const vf *)(gate + r * wide + n)) * *(const vf *)(up + r * wide + n);
      if (n + LANES <= columns)
        *(vf *)(to + n) = made;
      else
        for (int64_t i = n; i < columns; i++)
          to[i] = made[i - n];
    }
  }
}

// Columns `first` tiles on, `here` tiles of them, of one product of packed weights; `whole` takes
// them where the last tile is filled up.
template <typename X>
void columns_of(X x, int64_t rows, const float *w, int64_t count, int64_t columns, int64_t first,
                int64_t here, Places out, float *whole) {
  const float *part = w + first * count * TILE;
  int64_t left = columns - first * TILE;
  if (left >= here * TILE) {
    Places to = out;
    to.first += first * TILE;
    multiply_packed(x, rows, part, count, to, here);
    return;
  }
  multiply_packed(x, rows, part, count, Places{whole, GROUP * TILE, nullptr}, here);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t n = 0; n < left; n++)
      out[r][first * TILE + n] = whole[r * GROUP * TILE + n];
}

// The same of gate and up, which lie one behind the other. `whole`: two products of 64 columns.
template <typename X>
void gated_columns(X x, int64_t rows, const float *w, int64_t count, int64_t columns,
                   int64_t first, int64_t here, Places out, float *whole) {
  int64_t wide = GROUP * TILE, num_tiles = parts(columns, TILE);
  float *gate = whole, *up = whole + ROW_BLOCK * wide;
  const float *part = w + first * count * TILE;
  multiply_packed(x, rows, part, count, Places{gate, wide, nullptr}, here);
  multiply_packed(x, rows, part + num_tiles * count * TILE, count, Places{up, wide, nullptr}, here);
  gated(gate, up, wide, rows, smaller(here * TILE, columns - first * TILE), out, first * TILE);
}

} // namespace

extern "C" {

// x [T, K] . weight [N, K] -> out [T, N].
// Parameters: x, weight, out, num_rows, T, K, N, row of x, row of out. Scratch: 48 rows of 64.
void KERNEL(linear_f32)(void **params, Team *team) {
  const float *x = pointer<float>(params, 0), *w = pointer<float>(params, 1);
  float *out = pointer<float>(params, 2);
  int64_t rows = real_rows(params, 3, integer(params, 4));
  int64_t count = integer(params, 5), columns = integer(params, 6);
  int64_t x_row = integer(params, 7), out_row = integer(params, 8);
  int64_t num_tiles = parts(columns, TILE), groups = parts(num_tiles, GROUP);
  int64_t chunks = groups * parts(rows, ROW_BLOCK);
  for (int64_t c; (c = take(team, chunks)) >= 0;) {
    int64_t first = c % groups * GROUP, row = c / groups * ROW_BLOCK;
    columns_of(Rows{x + row * x_row, x_row}, smaller(ROW_BLOCK, rows - row), w, count, columns,
               first, smaller(GROUP, num_tiles - first),
               Places{out + row * out_row, out_row, nullptr}, (float *)team->scratch);
  }
}

// silu(x . gate) * (x . up) -> out [T, N]; both weights [N, K], one behind the other.
// Parameters as of linear_f32. Scratch: 48 rows of 128.
void KERNEL(gate_up_f32)(void **params, Team *team) {
  const float *x = pointer<float>(params, 0), *w = pointer<float>(params, 1);
  float *out = pointer<float>(params, 2);
  int64_t rows = real_rows(params, 3, integer(params, 4));
  int64_t count = integer(params, 5), columns = integer(params, 6);
  int64_t x_row = integer(params, 7), out_row = integer(params, 8);
  int64_t num_tiles = parts(columns, TILE), groups = parts(num_tiles, GROUP);
  int64_t chunks = groups * parts(rows, ROW_BLOCK);
  for (int64_t c; (c = take(team, chunks)) >= 0;) {
    int64_t first = c % groups * GROUP, row = c / groups * ROW_BLOCK;
    gated_columns(Rows{x + row * x_row, x_row}, smaller(ROW_BLOCK, rows - row), w, count, columns,
                  first, smaller(GROUP, num_tiles - first),
                  Places{out + row * out_row, out_row, nullptr}, (float *)team->scratch);
  }
}
}
