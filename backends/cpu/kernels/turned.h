// Rows as columns.

#pragma once

#include "numbers.h"

namespace {

// What lies in turn in two vectors: of their first halves, and of their second.
#if LANES == 16
inline vf first_in_turn(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline vf second_in_turn(vf a, vf b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#else
inline vf first_in_turn(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
inline vf second_in_turn(vf a, vf b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
#endif

// Number i of vector j becomes number j of vector i: each round doubles how many of one place lie
// together.
inline void turn(vf *v) {
  vf next[LANES];
#pragma GCC unroll 4
  for (int side = 1; side < LANES; side *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < LANES / 2; i++) {
      next[2 * i] = first_in_turn(v[i], v[i + LANES / 2]);
      next[2 * i + 1] = second_in_turn(v[i], v[i + LANES / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
      v[i] = next[i];
  }
}

// to[i][r] = from[r][i], for up to LANES rows and any width; 0 for the rows of LANES that
// are not there.
template <typename T>
void turn_rows(const T *const *from, int64_t rows, int64_t width, T *to, int64_t to_row) {
  int64_t i = 0;
  for (; i + LANES <= width; i += LANES) {
    vf held[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++)
      held[r] = r < rows ? load(from[r] + i) : same(0.0f);
    turn(held);
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++)
      store(to + (i + r) * to_row, held[r]);
  }
  for (; i < width; i++)
    for (int r = 0; r < LANES; r++)
      to[i * to_row + r] = r < rows ? from[r][i] : T{};
}

} // namespace
