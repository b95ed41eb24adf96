// What is done to each row by itself, in f32: norms, rotations, rows that are looked up or stored.

#include "team.h"
#include "vector_math.h"

namespace {

inline float sum_of_squares(const float *x, int64_t width, float mean) {
  vf sums[4] = {same(0.0f), same(0.0f), same(0.0f), same(0.0f)};
  int64_t i = 0;
  for (; i + 4 * LANES <= width; i += 4 * LANES)
    for (int v = 0; v < 4; v++) {
      vf held = *(const vf *)(x + i + LANES * v) - same(mean);
      sums[v] += held * held;
    }
  float sum = sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < width; i++)
    sum += (x[i] - mean) * (x[i] - mean);
  return sum;
}

inline float sum_of_all(const float *x, int64_t width) {
  vf sums[4] = {same(0.0f), same(0.0f), same(0.0f), same(0.0f)};
  int64_t i = 0;
  for (; i + 4 * LANES <= width; i += 4 * LANES)
    for (int v = 0; v < 4; v++)
      sums[v] += *(const vf *)(x + i + LANES * v);
  float sum = sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < width; i++)
    sum += x[i];
  return sum;
}

inline void norm_row(const float *x, const float *weight, float *out, int64_t width, float eps) {
  float factor = 1.0f / __builtin_sqrtf(sum_of_squares(x, width, 0.0f) / width + eps);
  for (int64_t i = 0; i < width; i++)
    out[i] = x[i] * factor * weight[i];
}

} // namespace

extern "C" {

// Parameters: x, weight, out, num_rows, rows, width, row of x, row of out, eps.
void KERNEL(rms_norm_f32)(void **params, Team *team) {
  const float *x = pointer<float>(params, 0), *weight = pointer<float>(params, 1);
  float *out = pointer<float>(params, 2);
  int64_t rows = real_rows(params, 3, integer(params, 4)), width = integer(params, 5);
  int64_t x_row = integer(params, 6), out_row = integer(params, 7);
  float eps = number(params, 8);
  for (int64_t r; (r = take(team, rows)) >= 0;)
    norm_row(x + r * x_row, weight, out + r * out_row, width, eps);
}

// Parameters: x, weight, bias, out, num_rows, rows, width, row of x, row of out, eps.
void KERNEL(layer_norm_f32)(void **params, Team *team) {
  const float *x = pointer<float>(params, 0), *weight = pointer<float>(params, 1);
  const float *bias = pointer<float>(params, 2);
  float *out = pointer<float>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5)), width = integer(params, 6);
  int64_t x_row = integer(params, 7), out_row = integer(params, 8);
  float eps = number(params, 9);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    const float *from = x + r * x_row;
    float mean = sum_of_all(from, width) / width;
    float factor = 1.0f / __builtin_sqrtf(sum_of_squares(from, width, mean) / width + eps);
    for (int64_t i = 0; i < width; i++)
      out[r * out_row + i] = (from[i] - mean) * factor * weight[i] + bias[i];
  }
}

// total = a + b (where it is wanted), out = norm of the sum. The sum lies in scratch: a row.
// Parameters: a, b, weight, total or null, out, num_rows, rows, width, rows of a, b, total, out,
// eps.
void KERNEL(add_norm_f32)(void **params, Team *team) {
  const float *a = pointer<float>(params, 0), *b = pointer<float>(params, 1);
  const float *weight = pointer<float>(params, 2);
  float *total = pointer<float>(params, 3), *out = pointer<float>(params, 4);
  int64_t rows = real_rows(params, 5, integer(params, 6)), width = integer(params, 7);
  int64_t a_row = integer(params, 8), b_row = integer(params, 9);
  int64_t total_row = integer(params, 10), out_row = integer(params, 11);
  float eps = number(params, 12), *sum = (float *)team->scratch;
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    for (int64_t i = 0; i < width; i++)
      sum[i] = a[r * a_row + i] + b[r * b_row + i];
    if (total)
      for (int64_t i = 0; i < width; i++)
        total[r * total_row + i] = sum[i];
    norm_row(sum, weight, out + r * out_row, width, eps);
  }
}

// Elements offset .. offset + dim of each head are rotated by the row's angles, others copied.
// table [2, T, dim]: cosines, then signed sines. x and out [T, heads, width], any strides.
// Parameters: x, table, out, num_rows, T, heads, width, offset, dim, whether pairs lie side by
// side, row and head of x, row and head of out.
void KERNEL(rotate_f32)(void **params, Team *team) {
  const float *x = pointer<float>(params, 0), *table = pointer<float>(params, 1);
  float *out = pointer<float>(params, 2);
  int64_t most = integer(params, 4), rows = real_rows(params, 3, most);
  int64_t heads = integer(params, 5), width = integer(params, 6), offset = integer(params, 7);
  int64_t dim = integer(params, 8), interleaved = integer(params, 9);
  int64_t x_row = integer(params, 10), x_head = integer(params, 11);
  int64_t out_row = integer(params, 12), out_head = integer(params, 13);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    const float *cos = table + r * dim, *sin = table + (most + r) * dim;
    for (int64_t h = 0; h < heads; h++) {
      const float *from = x + r * x_row + h * x_head;
      float *to = out + r * out_row + h * out_head;
      for (int64_t i = 0; i < offset; i++)
        to[i] = from[i];
      for (int64_t i = offset + dim; i < width; i++)
        to[i] = from[i];
      from += offset;
      to += offset;
      if (interleaved) {
        for (int64_t i = 0; i < dim; i += 2) {
          float even = from[i], odd = from[i + 1];
          to[i] = even * cos[i] + odd * sin[i];
          to[i + 1] = odd * cos[i + 1] + even * sin[i + 1];
        }
      } else {
        int64_t half = dim / 2;
        for (int64_t i = 0; i < half; i++) {
          float low = from[i], high = from[i + half];
          to[i] = low * cos[i] + high * sin[i];
          to[i + half] = high * cos[i + half] + low * sin[i + half];
        }
      }
    }
  }
}

// Parts of a row side by side at its slot of the cache [slots, width], in f32.
// Parameters: cache, slots, first part, second or null, num_rows, rows, width, widths of the two,
// their rows.
void KERNEL(append_f32)(void **params, Team *team) {
  float *cache = pointer<float>(params, 0);
  const int32_t *slots = pointer<int32_t>(params, 1);
  const float *first = pointer<float>(params, 2), *second = pointer<float>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5)), width = integer(params, 6);
  int64_t wide = integer(params, 7), wide_too = integer(params, 8);
  int64_t first_row = integer(params, 9), second_row = integer(params, 10);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    float *to = cache + slots[r] * width;
    for (int64_t i = 0; i < wide; i++)
      to[i] = first[r * first_row + i];
    for (int64_t i = 0; i < wide_too; i++)
      to[wide + i] = second[r * second_row + i];
  }
}

// Parameters: a, b, out, num_rows, rows, width, rows of a, b, out.
void KERNEL(add_f32)(void **params, Team *team) {
  const float *a = pointer<float>(params, 0), *b = pointer<float>(params, 1);
  float *out = pointer<float>(params, 2);
  int64_t rows = real_rows(params, 3, integer(params, 4)), width = integer(params, 5);
  int64_t a_row = integer(params, 6), b_row = integer(params, 7), out_row = integer(params, 8);
  for (int64_t r; (r = take(team, rows)) >= 0;)
    for (int64_t i = 0; i < width; i++)
      out[r * out_row + i] = a[r * a_row + i] + b[r * b_row + i];
}
}
