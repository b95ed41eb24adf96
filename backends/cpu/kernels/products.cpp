// Products of rows with stored weights: alone, and gate and up as one.

#include "scaled.h"
#include "team.h"

namespace {

// Rows of x; e4m3 has scales, parameters `index` and on: these, their row.
template <typename X> inline auto rows_of(void **params, int64_t row, int) {
  return Rows<X>{pointer<X>(params, 0), row};
}
template <> inline auto rows_of<f8>(void **params, int64_t row, int index) {
  return ScaledRows<Rows<f8>, Rows<float>>{{pointer<f8>(params, 0), row},
                                           {pointer<float>(params, index), integer(params, index + 1)}};
}

template <typename X, typename W, typename T> void linear(void **params, Team *team) {
  T *out = pointer<T>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5));
  int64_t count = integer(params, 6), columns = integer(params, 7);
  int64_t out_row = integer(params, 9);
  auto x = rows_of<X>(params, integer(params, 8), 10);
  Tiles<W> w = packed<W>(params, 1, count);
  int64_t num_tiles = parts(columns, TILE), groups = parts(num_tiles, GROUP);
  int64_t blocks = parts(rows, ROW_BLOCK), chunks = groups * blocks;
  for (int64_t c; (c = take(team, chunks)) >= 0;) {
    int64_t first = c / blocks * GROUP, row = c % blocks * ROW_BLOCK;
    columns_of(x.behind(row), smaller(ROW_BLOCK, rows - row), w, count, columns, first,
               smaller(GROUP, num_tiles - first), Places<T>{out + row * out_row, out_row, nullptr},
               (Room *)team->scratch);
  }
}

template <typename X, typename W, typename T> void gate_up(void **params, Team *team) {
  T *out = pointer<T>(params, 5);
  int64_t rows = real_rows(params, 6, integer(params, 7));
  int64_t count = integer(params, 8), columns = integer(params, 9);
  int64_t out_row = integer(params, 11);
  auto x = rows_of<X>(params, integer(params, 10), 12);
  Tiles<W> gate = packed<W>(params, 1, count), up = packed<W>(params, 3, count);
  int64_t num_tiles = parts(columns, TILE), groups = parts(num_tiles, GROUP);
  int64_t blocks = parts(rows, ROW_BLOCK), chunks = groups * blocks;
  for (int64_t c; (c = take(team, chunks)) >= 0;) {
    int64_t first = c / blocks * GROUP, row = c % blocks * ROW_BLOCK;
    gated_columns<T>(x.behind(row), smaller(ROW_BLOCK, rows - row), gate, up, count, columns, first,
                     smaller(GROUP, num_tiles - first),
                     Places<T>{out + row * out_row, out_row, nullptr}, (Room *)team->scratch);
  }
}

} // namespace

// x [T, K] . weight [N, K] -> out [T, N], by the types of the three; q8 is e4m3 with a scale for
// each 128 columns of a row.
// Parameters: x, weight, its scales or null, out, num_rows, T, K, N, row of x, row of out; of q8 the
// scales of x, their row. Scratch: a Room.
KERNEL_OF(linear_f32, linear<float, float, float>)
KERNEL_OF(linear_bf16, linear<bf16, bf16, bf16>)
KERNEL_OF(linear_bf16_bf16_f32, linear<bf16, bf16, float>)
KERNEL_OF(linear_bf16_f8_bf16, linear<bf16, f8, bf16>)
KERNEL_OF(linear_bf16_f8_f32, linear<bf16, f8, float>)
KERNEL_OF(linear_bf16_s8_bf16, linear<bf16, s8, bf16>)
KERNEL_OF(linear_bf16_s8_f32, linear<bf16, s8, float>)
KERNEL_OF(linear_f32_f8_f32, linear<float, f8, float>)
KERNEL_OF(linear_f32_s8_f32, linear<float, s8, float>)
KERNEL_OF(linear_q8_f8_bf16, linear<f8, f8, bf16>)
KERNEL_OF(linear_q8_f8_f32, linear<f8, f8, float>)

// silu(x . gate) * (x . up) -> out [T, N], whose type gate and up are rounded to; both weights
// [N, K]. By the types of x and weights, of q8 and out.
// Parameters: x, gate, its scales or null, up, its scales or null, out, num_rows, T, K, N, row of x,
// row of out; of q8 the scales of x, their row. Scratch: a Room.
KERNEL_OF(gate_up_f32, gate_up<float, float, float>)
KERNEL_OF(gate_up_f32_f8, gate_up<float, f8, float>)
KERNEL_OF(gate_up_f32_s8, gate_up<float, s8, float>)
KERNEL_OF(gate_up_bf16, gate_up<bf16, bf16, bf16>)
KERNEL_OF(gate_up_bf16_f8, gate_up<bf16, f8, bf16>)
KERNEL_OF(gate_up_bf16_s8, gate_up<bf16, s8, bf16>)
KERNEL_OF(gate_up_q8_f8_bf16, gate_up<f8, f8, bf16>)
KERNEL_OF(gate_up_q8_f8_f32, gate_up<f8, f8, float>)
