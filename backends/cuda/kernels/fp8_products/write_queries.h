// What a tile's sums become where the products are queries: attention's, of which part of each head turns,
// in bf16; behind them the indexer's, a head a tile, turned and in bf16, or QUANTISED: rotated by the
// Hadamard matrix, too, and quantised. What stands between the steps is rounded to bf16.
#pragma once
#include "multiply.h"
#include "write_rows.h"

constexpr int TURNS_ALONE = 64;  // columns that all turn, or all stay
static_assert(COLUMNS == BLOCK && !GATED && !GROUPED, "a tile is a head of the indexer's");
static_assert(WIDTH % TURNS_ALONE == 0 && OFFSET % TURNS_ALONE == 0 && DIM == TURNS_ALONE, "see the lowering");
static_assert(HEADS * WIDTH % COLUMNS == 0 && INDEX_OFFSET % 8 == 0 && INDEX_DIM % 16 == 0, "see the lowering");

// Rows and heads are so many elements apart. Tables: f32 [2, rows, DIM], cosines and signed sines.
struct Queries {
  uint8_t* q;
  long long q_row, q_head;
  const float* table;
  uint8_t* index;  // bf16, or QUANTISED fp8 with a scale a head
  long long index_row, index_head;
  float* scale;
  long long scale_row, scale_head;
  const float* index_table;
  int real;
};

struct Turn {
  float cosine[2], sine[2];
};

// Of a row's column and the next.
INLINE Turn turn_of(const float* table, int dim, int row, int rows, int column) {
  const float *cosine = table + (long long)row * dim + column, *sine = cosine + (long long)rows * dim;
  return Turn{{read_global(cosine), read_global(cosine + 1)}, {read_global(sine), read_global(sine + 1)}};
}

// Neighbours turn with each other.
INLINE void write_query(float (&v)[HELD], int half, const Queries& to, int row, int rows, int column, int lane) {
  const bool real = row < to.real;
  const int known = min(row, rows - 1);
#pragma unroll
  for (int part = 0; part < COLUMNS; part += TURNS_ALONE) {
    const int head = (column + part) / WIDTH, at = (column + part) % WIDTH;
    if (at == OFFSET) {
#pragma unroll
      for (int j = 0; j < TURNS_ALONE / 8; j++) {
        float &first = v[part / 2 + 4 * j + 2 * half], &second = v[part / 2 + 4 * j + 2 * half + 1];
        const Turn turn = turn_of(to.table, DIM, known, rows, 8 * j + 2 * (lane & 3));
        const float a = as_bf16(first), b = as_bf16(second);
        first = a * turn.cosine[0] + b * turn.sine[0], second = b * turn.cosine[1] + a * turn.sine[1];
      }
    }
    uint8_t* head_row = to.q + 2 * (row * to.q_row + head * to.q_head + at);
#pragma unroll
    for (int j = 0; j < TURNS_ALONE / 8; j += 4) write_eights(v, part / 8 + j, half, head_row + 16 * j, real, lane);
  }
}

// Columns turn with those half of INDEX_DIM behind them.
INLINE void turn_index(float (&v)[HELD], int half, const float* table, int row, int rows, int lane) {
  constexpr int FIRST = INDEX_OFFSET / 8, APART = INDEX_DIM / 16;  // in eights
#pragma unroll
  for (int i = 0; i < HELD / 4; i++)
#pragma unroll
    for (int e = 0; e < 2; e++) v[4 * i + 2 * half + e] = as_bf16(v[4 * i + 2 * half + e]);
#pragma unroll
  for (int j = 0; j < APART; j++) {
    const int column = 8 * j + 2 * (lane & 3);
    const Turn near = turn_of(table, INDEX_DIM, row, rows, column);
    const Turn far = turn_of(table, INDEX_DIM, row, rows, column + INDEX_DIM / 2);
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float &first = v[4 * (FIRST + j) + 2 * half + e], &second = v[4 * (FIRST + j + APART) + 2 * half + e];
      const float a = first, b = second;
      first = as_bf16(a * near.cosine[e] + b * near.sine[e]), second = as_bf16(b * far.cosine[e] + a * far.sine[e]);
    }
  }
}

// The row times Sylvester's matrix of +-1 over the root of its width.
INLINE void rotate(float (&v)[HELD], int half, int lane) {
#pragma unroll
  for (int j = 0; j < HELD / 4; j++) {
    float &first = v[4 * j + 2 * half], &second = v[4 * j + 2 * half + 1];
    const float a = first, b = second;
    first = a + b, second = a - b;
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float& mine = v[4 * j + 2 * half + e];
#pragma unroll
      for (int distance = 1; distance < 4; distance *= 2) {
        const float other = __shfl_xor_sync(EVERY_LANE, mine, distance);
        mine = lane & distance ? other - mine : mine + other;
      }
    }
  }
#pragma unroll
  for (int distance = 1; distance < HELD / 4; distance *= 2)
#pragma unroll
    for (int j = 0; j < HELD / 4; j++) {
      if (j & distance) continue;
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float &first = v[4 * j + 2 * half + e], &second = v[4 * (j + distance) + 2 * half + e];
        const float a = first, b = second;
        first = a + b, second = a - b;
      }
    }
  constexpr float SCALE = 0.08838834764831845f;  // 128^-0.5
#pragma unroll
  for (int j = 0; j < HELD / 4; j++)
#pragma unroll
    for (int e = 0; e < 2; e++) v[4 * j + 2 * half + e] = as_bf16(v[4 * j + 2 * half + e] * SCALE);
}

INLINE void write_index(float (&v)[HELD], int half, const Queries& to, int row, int rows, int head, int lane) {
  const bool real = row < to.real;
  turn_index(v, half, to.index_table, min(row, rows - 1), rows, lane);
  const long long at = row * to.index_row + head * to.index_head;
  if (QUANTISED) {
    rotate(v, half, lane);
    write_quantised<1>(v, half, to.index + at, 0, to.scale + row * to.scale_row + head * to.scale_head, real, 0, COLUMNS,
                       lane);
  } else {
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j += 4) write_eights(v, j, half, to.index + 2 * at + 16 * j, real, lane);
  }
}

template <int PRODUCTS>
INLINE void write_tile(Sums<PRODUCTS>& sums, const Queries& to, const Tile& tile, const Sizes& sizes, int first, int lane) {
  const int index_head = (tile.column - HEADS * WIDTH) / COLUMNS;
#pragma unroll
  for (int p = 0; p < PRODUCTS; p++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = row_of(first, p, half);
      if (tile.column < HEADS * WIDTH) write_query(sums.of[p], half, to, row, sizes.rows, tile.column, lane);
      else if (tile.column < sizes.columns) write_index(sums.of[p], half, to, row, sizes.rows, index_head, lane);
    }
}
