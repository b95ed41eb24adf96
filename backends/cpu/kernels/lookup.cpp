// Rows that are looked up, put side by side, or cleared.

#include "numbers.h"

namespace {

template <typename X, typename T> void take_rows(void **params, Team *team) {
  const X *table = pointer<X>(params, 0);
  const int32_t *which = pointer<int32_t>(params, 1);
  T *out = pointer<T>(params, 2);
  int64_t rows = real_rows(params, 3, integer(params, 4)), width = integer(params, 5);
  int64_t held = integer(params, 6), table_row = integer(params, 7), out_row = integer(params, 8);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    int64_t from = which ? which[r] : r;
    if (is_of(from, held))
      copy(out + r * out_row, table + from * table_row, width);
    else
      __builtin_memset((void *)(out + r * out_row), 0, width * sizeof(T));
  }
}

template <typename T> void clear_rows(void **params, Team *team) {
  T *out = pointer<T>(params, 0);
  int64_t rows = real_rows(params, 1, integer(params, 2)), width = integer(params, 3);
  int64_t out_row = integer(params, 4);
  for (int64_t r; (r = take(team, rows)) >= 0;)
    __builtin_memset((void *)(out + r * out_row), 0, width * sizeof(T));
}

} // namespace

// Row which[r] of the table as row r of out, zeros where it has no such row (-1); row r itself where
// `which` is null. By the types of table and out.
// Parameters: table, which or null, out, num_rows, rows, width, rows of the table, rows of table and
// out in memory.
KERNEL_OF(take_rows_f32, take_rows<float, float>)
KERNEL_OF(take_rows_bf16, take_rows<bf16, bf16>)
KERNEL_OF(take_rows_f32_bf16, take_rows<float, bf16>)
KERNEL_OF(take_rows_bf16_f32, take_rows<bf16, float>)

// Zeros. Parameters: out, num_rows, rows, width, row of out.
KERNEL_OF(clear_rows_f32, clear_rows<float>)
KERNEL_OF(clear_rows_bf16, clear_rows<bf16>)
