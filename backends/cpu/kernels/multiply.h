// Products of rows with stored weights, of any numbers, in f32. A weight [N, K] lies as
// [N / 16][K][16]: what one row reads of it is one stream, and a column's sum has one order whatever
// rows stand beside it.

#pragma once

#include "eight_bits.h"

namespace {

const int64_t TILE = 16;     // columns that lie together
const int64_t GROUP = 4;     // tiles of a chunk
const int64_t WIDE = GROUP * TILE;
const int64_t K_BLOCK = 128; // of a sum, before it is added to those before it
const int64_t ROW_BLOCK = 96;
const int64_t ROWS_AT_ONCE = 6; // as many as share what is read of a weight
const int64_t SCALED = 128;     // rows and columns of an f8 weight under one scale
const int PER_TILE = TILE / LANES; // vectors

// Rows that lie one behind the other.
template <typename T> struct Rows {
  const T *first;
  int64_t row;
  const T *operator[](int64_t r) const { return first + r * row; }
  Rows behind(int64_t r) const { return {first + r * row, row}; }
  Rows at(int64_t k) const { return {first + k, row}; }
};

// Rows of a list, as those that chose an expert.
template <typename T> struct Listed {
  const T *first;
  int64_t row;
  const int32_t *list;
  const T *operator[](int64_t r) const { return first + list[r] * row; }
  Listed behind(int64_t r) const { return {first, row, list + r}; }
  Listed at(int64_t k) const { return {first + k, row, list}; }
};

// Where a product's rows go: those of `list`, where there is one.
template <typename T> struct Places {
  T *first;
  int64_t row;
  const int32_t *list;
  T *operator[](int64_t r) const { return first + (list ? list[r] : r) * row; }
  Places behind(int64_t r) const {
    return list ? Places{first, row, list + r} : Places{first + r * row, row, nullptr};
  }
};

// A weight's tiles of 16 columns, `tile` numbers apart, whose rows are `step` apart.
template <typename W> struct Tiles {
  const W *first;
  int64_t tile, step;
  Tiles from(int64_t t, int64_t k) const { return {first + t * tile + k * step, tile, step}; }
  // Those of one of several weights of so many tiles, one behind the other.
  Tiles matrix(int64_t i, int64_t num_tiles) const { return from(i * num_tiles, 0); }
  vf at(int t, int64_t k, int v) const { return load(first + t * tile + k * step + v * LANES); }
  // Rows from one on that have the factors of that one; what these are of a tile.
  int64_t alike(int64_t) const { return 1 << 30; }
  vf factor(int, int64_t) const { return same(1.0f); }
  static vf times(vf x, vf) { return x; }
  float one(int64_t k, int64_t n) const { return wide(first[k * step + n]); } // of the first tile
};

// The same of e4m3 with a scale for each 128 rows and columns.
template <> struct Tiles<f8> {
  const f8 *first;
  int64_t tile, step;
  const float *scales; // of columns and rows counted from where `column` and `row` are 0
  int64_t by_column, by_row; // from one scale to the next
  int64_t column, row;
  Tiles from(int64_t t, int64_t k) const {
    Tiles moved = *this;
    moved.first += t * tile + k * step;
    moved.column += t * TILE;
    moved.row += k;
    return moved;
  }
  Tiles matrix(int64_t i, int64_t num_tiles) const {
    Tiles own = *this;
    own.first += i * num_tiles * tile;
    own.scales += i * parts(num_tiles * TILE, SCALED) * by_column;
    return own;
  }
  vf at(int t, int64_t k, int v) const { return load(first + t * tile + k * step + v * LANES); }
  int64_t alike(int64_t k) const { return SCALED - (row + k) % SCALED; }
  float scale(int64_t k, int64_t n) const {
    return F8_FACTOR * scales[(column + n) / SCALED * by_column + (row + k) / SCALED * by_row];
  }
  vf factor(int t, int64_t k) const { return same(scale(k, t * TILE)); }
  static vf times(vf x, vf factor) { return x * factor; }
  float one(int64_t k, int64_t n) const { return wide(first[k * step + n]) * scale(k, n); }
};

// What a thread takes for a product beside its operands.
struct Room {
  float x[2 * ROW_BLOCK * K_BLOCK], w[2 * GROUP * K_BLOCK * TILE], whole[2][ROW_BLOCK * WIDE];
};

// out[r][16 v ...] (+)= x[r] . w for R rows and V tiles, over k of a block.
template <int R, int V, typename X, typename W>
inline __attribute__((always_inline)) void block(X x, Tiles<W> w, int64_t count, Places<float> out,
                                                 int64_t column, bool adds) {
  const float *from[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
    from[r] = x[r];
  vf sums[R][V * PER_TILE];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < V * PER_TILE; v++)
      sums[r][v] = same(0.0f);
  for (int64_t k = 0; k < count;) {
    int64_t end = smaller(count, k + w.alike(k));
    vf factors[V];
#pragma GCC unroll 16
    for (int t = 0; t < V; t++)
      factors[t] = w.factor(t, k);
    for (; k < end; k++) {
      vf held[V * PER_TILE];
#pragma GCC unroll 16
      for (int v = 0; v < V * PER_TILE; v++)
        held[v] = w.times(w.at(v / PER_TILE, k, v % PER_TILE), factors[v / PER_TILE]);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        vf value = same(from[r][k]);
#pragma GCC unroll 16
        for (int v = 0; v < V * PER_TILE; v++)
          sums[r][v] += value * held[v];
      }
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

template <int R, int V, typename X, typename W>
void tiles(X x, W w, int64_t count, Places<float> out, int64_t num_tiles, bool adds) {
  int64_t t = 0;
  for (; t + V <= num_tiles; t += V)
    block<R, V>(x, w.from(t, 0), count, out, t * TILE, adds);
  for (; t < num_tiles; t++)
    block<R, 1>(x, w.from(t, 0), count, out, t * TILE, adds);
}

template <typename X, typename W>
void all_rows(X x, int64_t rows, W w, int64_t count, Places<float> out, int64_t num_tiles,
              bool adds) {
  for (int64_t r = 0; r < rows; r += ROWS_AT_ONCE) {
    X from = x.behind(r);
    Places<float> to = out.behind(r);
    // As many tiles as registers hold sums of: 16 of 8 numbers, or 32 of 16.
    const int SOME = PER_TILE == 1 ? 4 : 2, FEW = PER_TILE == 1 ? 4 : 1;
    switch (smaller(rows - r, ROWS_AT_ONCE)) {
    case 1: tiles<1, 4>(from, w, count, to, num_tiles, adds); break;
    case 2: tiles<2, SOME>(from, w, count, to, num_tiles, adds); break;
    case 3: tiles<3, SOME>(from, w, count, to, num_tiles, adds); break;
    case 4: tiles<4, FEW>(from, w, count, to, num_tiles, adds); break;
    case 5: tiles<5, FEW>(from, w, count, to, num_tiles, adds); break;
    default: tiles<6, FEW>(from, w, count, to, num_tiles, adds); break;
    }
  }
}

// Rows from k on as f32: themselves, or a copy of so many of their numbers.
inline Rows<float> as_f32(Rows<float> x, int64_t, int64_t k, int64_t, float *) { return x.at(k); }
inline Listed<float> as_f32(Listed<float> x, int64_t, int64_t k, int64_t, float *) {
  return x.at(k);
}
template <typename X>
Rows<float> as_f32(X x, int64_t rows, int64_t k, int64_t count, float *room) {
  for (int64_t r = 0; r < rows; r++)
    copy(room + r * K_BLOCK, x[r] + k, count);
  return {room, K_BLOCK};
}

// Tiles as f32, the numbers that `block` makes of them.
template <typename W>
Tiles<float> as_f32(Tiles<W> w, int64_t count, int64_t num_tiles, float *room) {
  for (int64_t t = 0; t < num_tiles; t++)
    for (int64_t k = 0; k < count;) {
      Tiles<W> own = w.from(t, 0);
      vf factor = own.factor(0, k);
      for (int64_t end = smaller(count, k + own.alike(k)); k < end; k++)
        for (int v = 0; v < PER_TILE; v++)
          store(room + (t * count + k) * TILE + v * LANES, own.times(own.at(0, k, v), factor));
    }
  return {room, count * TILE, TILE};
}

template <typename W> constexpr bool IS_F32 = false;
template <> constexpr bool IS_F32<float> = true;

// Whether so many rows read tiles from a copy of theirs: as f32, or of one piece, where the nearest
// cache holds them.
template <typename W> inline bool copied(Tiles<W>, int64_t rows) { return rows > ROWS_AT_ONCE; }
inline bool copied(Tiles<float> w, int64_t rows) {
  return rows > 4 * ROWS_AT_ONCE && w.tile != TILE;
}

// Whether the processor's bf16 instructions take such rows and tiles (`pairs.h`).
template <typename X, typename W> constexpr bool PAIRED = false;
#if defined(__AVX512BF16__)
template <typename W> constexpr bool PAIRED<Rows<bf16>, W> = !IS_F32<W>;
template <typename W> constexpr bool PAIRED<Listed<bf16>, W> = !IS_F32<W>;
template <> constexpr bool PAIRED<Rows<s8>, bf16> = true; // exact in bf16
#endif
template <typename X, typename W>
void multiply_pairs(X x, int64_t rows, Tiles<W> w, int64_t count, Places<float> out,
                    int64_t num_tiles, Room *room, bool adds);

// Whether such rows meet such weights in whole numbers (`integers.h`).
template <typename X, typename W> constexpr bool IN_INTEGERS = false;
template <typename X, typename W>
void multiply_integers(X x, int64_t rows, Tiles<W> w, int64_t count, Places<float> out,
                       int64_t num_tiles, Room *room, bool adds);

// out [rows, 16 tiles] = x [rows, count] . w, up to ROW_BLOCK rows and 4 tiles, or that added to
// out. A number is the same in a copy, so the bits are, too.
template <typename X, typename W>
void multiply(X x, int64_t rows, Tiles<W> w, int64_t count, Places<float> out, int64_t num_tiles,
              Room *room, bool adds = false) {
  if constexpr (PAIRED<X, W> && !requires { w.of_sums(0); }) {
    multiply_pairs(x, rows, w, count, out, num_tiles, room, adds);
    return;
  }
  if constexpr (IN_INTEGERS<X, W>)
    multiply_integers(x, rows, w, count, out, num_tiles, room, adds);
  else
    for (int64_t k = 0; k < count; k += K_BLOCK) {
      int64_t held = smaller(K_BLOCK, count - k);
      auto from = as_f32(x, rows, k, held, room->x);
      Tiles<W> here = w.from(0, k);
      if (copied(w, rows))
        all_rows(from, rows, as_f32(here, held, num_tiles, room->w), held, out, num_tiles,
                 adds || k > 0);
      else
        all_rows(from, rows, here, held, out, num_tiles, adds || k > 0);
    }
  if constexpr (requires { w.of_sums(0); })
    for (int64_t r = 0; r < rows; r++)
      for (int64_t n = 0; n < num_tiles * TILE; n += LANES)
        store(out[r] + n, load(out[r] + n) * w.of_sums(n));
}

// Columns `first` tiles on, `here` tiles of them, of one product of packed weights, of which there
// are `columns`; they lie in the room before they are rounded, or where the last tile is filled up.
template <typename X, typename W, typename T>
void columns_of(X x, int64_t rows, Tiles<W> w, int64_t count, int64_t columns, int64_t first,
                int64_t here, Places<T> out, Room *room) {
  int64_t left = smaller(columns - first * TILE, here * TILE);
  if constexpr (IS_F32<T>)
    if (left == here * TILE) {
      Places<float> to = out;
      to.first += first * TILE;
      multiply(x, rows, w.from(first, 0), count, to, here, room);
      return;
    }
  float *whole = room->whole[0];
  multiply(x, rows, w.from(first, 0), count, Places<float>{whole, WIDE, nullptr}, here, room);
  for (int64_t r = 0; r < rows; r++)
    copy(out[r] + first * TILE, whole + r * WIDE, left);
}

// silu(x . gate) * (x . up) of such columns; both products are as a G stores them before they meet.
template <typename G, typename X, typename W, typename T>
void gated_columns(X x, int64_t rows, Tiles<W> gate, Tiles<W> up, int64_t count, int64_t columns,
                   int64_t first, int64_t here, Places<T> out, Room *room) {
  float *one_row = room->whole[0], *other_row = room->whole[1];
  multiply(x, rows, gate.from(first, 0), count, Places<float>{one_row, WIDE, nullptr}, here, room);
  multiply(x, rows, up.from(first, 0), count, Places<float>{other_row, WIDE, nullptr}, here, room);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t n = 0; n < here * TILE; n += LANES) {
      vf one = stored<G>(load(one_row + n)), other = stored<G>(load(other_row + n));
      store(one_row + n, silu(one) * other);
    }
    copy(out[r] + first * TILE, one_row, smaller(here * TILE, columns - first * TILE));
    one_row += WIDE;
    other_row += WIDE;
  }
}

// Tiles of a packed weight [tiles][count][16] and, of f8, its scales: parameters `index` and on.
template <typename W> inline Tiles<W> packed(void **params, int index, int64_t count);
template <> inline Tiles<float> packed<float>(void **params, int index, int64_t count) {
  return {pointer<float>(params, index), count * TILE, TILE};
}
template <> inline Tiles<bf16> packed<bf16>(void **params, int index, int64_t count) {
  return {pointer<bf16>(params, index), count * TILE, TILE};
}
template <> inline Tiles<f8> packed<f8>(void **params, int index, int64_t count) {
  return {pointer<f8>(params, index), count * TILE, TILE, pointer<float>(params, index + 1),
          parts(count, SCALED), 1, 0, 0};
}

} // namespace

#include "pairs.h"
