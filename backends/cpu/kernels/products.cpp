// Products of rows with stored weights: alone, and gate and up as one.

#include "multiply.h"
#include "team.h"

namespace {

template <typename X, typename W, typename T> void linear(void **params, Team *team) {
  const X *x = pointer<X>(params, 0);
  T *out = pointer<T>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5));
  int64_t count = integer(params, 6), columns = integer(params, 7);
  int64_t x_row = integer(params, 8), out_row = integer(params, 9);
  Tiles<W> w = packed<W>(params, 1, count);
  int64_t num_tiles = parts(columns, TILE), groups = parts(num_tiles, GROUP);
  int64_t blocks = parts(rows, ROW_BLOCK), chunks = groups * blocks;
  for (int64_t c; (c = take(team, chunks)) >= 0;) {
    int64_t first = c / blocks * GROUP, row = c % blocks * ROW_BLOCK;
    columns_of(Rows<X>{x + row * x_row, x_row}, smaller(ROW_BLOCK, rows - row), w, count, columns,
               first, smaller(GROUP, num_tiles - first),
               Places<T>{out + row * out_row, out_row, nullptr}, (Room *)team->scratch);
  }
}

template <typename X, typename W> void gate_up(void **params, Team *team) {
  const X *x = pointer<X>(params, 0);
  X *out = pointer<X>(params, 5);
  int64_t rows = real_rows(params, 6, integer(params, 7));
  int64_t count = integer(params, 8), columns = integer(params, 9);
  int64_t x_row = integer(params, 10), out_row = integer(params, 11);
  Tiles<W> gate = packed<W>(params, 1, count), up = packed<W>(params, 3, count);
  int64_t num_tiles = parts(columns, TILE), groups = parts(num_tiles, GROUP);
  int64_t blocks = parts(rows, ROW_BLOCK), chunks = groups * blocks;
  for (int64_t c; (c = take(team, chunks)) >= 0;) {
    int64_t first = c / blocks * GROUP, row = c % blocks * ROW_BLOCK;
    gated_columns<X>(Rows<X>{x + row * x_row, x_row}, smaller(ROW_BLOCK, rows - row), gate, up,
                     count, columns, first, smaller(GROUP, num_tiles - first),
                     Places<X>{out + row * out_row, out_row, nullptr}, (Room *)team->scratch);
  }
}

} // namespace

// x [T, K] . weight [N, K] -> out [T, N], by the types of the three.
// Parameters: x, weight, its scales or null, out, num_rows, T, K, N, row of x, row of out.
// Scratch: a Room.
KERNEL_OF(linear_f32, linear<float, float, float>)
KERNEL_OF(linear_bf16, linear<bf16, bf16, bf16>)
KERNEL_OF(linear_bf16_bf16_f32, linear<bf16, bf16, float>)
KERNEL_OF(linear_bf16_f8_bf16, linear<bf16, f8, bf16>)
KERNEL_OF(linear_bf16_f8_f32, linear<bf16, f8, float>)

// silu(x . gate) * (x . up) -> out [T, N] of x's type, which gate and up are rounded to; both weights
// [N, K]. By the types of x and weights.
// Parameters: x, gate, its scales or null, up, its scales or null, out, num_rows, T, K, N, row of x,
// row of out. Scratch: a Room.
KERNEL_OF(gate_up_f32, gate_up<float, float>)
KERNEL_OF(gate_up_bf16, gate_up<bf16, bf16>)
KERNEL_OF(gate_up_bf16_f8, gate_up<bf16, f8>)
