// What is done to each row by itself: norms, rotations, rows that are looked up or stored.

#include "numbers.h"
#include "team.h"

namespace {

template <typename T> inline float sum_of_squares(const T *x, int64_t width, float mean) {
  vf sums[4] = {same(0.0f), same(0.0f), same(0.0f), same(0.0f)};
  int64_t i = 0;
  for (; i + 4 * LANES <= width; i += 4 * LANES)
    for (int v = 0; v < 4; v++) {
      vf held = load(x + i + LANES * v) - same(mean);
      sums[v] += held * held;
    }
  float sum = sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < width; i++)
    sum += (wide(x[i]) - mean) * (wide(x[i]) - mean);
  return sum;
}

template <typename T> inline float sum_of_all(const T *x, int64_t width) {
  vf sums[4] = {same(0.0f), same(0.0f), same(0.0f), same(0.0f)};
  int64_t i = 0;
  for (; i + 4 * LANES <= width; i += 4 * LANES)
    for (int v = 0; v < 4; v++)
      sums[v] += load(x + i + LANES * v);
  float sum = sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < width; i++)
    sum += wide(x[i]);
  return sum;
}

template <typename X, typename T>
inline void norm_row(const X *x, const T *weight, T *out, int64_t width, float eps) {
  float factor = 1.0f / __builtin_sqrtf(sum_of_squares(x, width, 0.0f) / width + eps);
  for (int64_t i = 0; i < width; i++)
    store(out + i, wide(x[i]) * factor * wide(weight[i]));
}

template <typename T> void rms_norm(void **params, Team *team) {
  const T *x = pointer<T>(params, 0), *weight = pointer<T>(params, 1);
  T *out = pointer<T>(params, 2);
  int64_t rows = real_rows(params, 3, integer(params, 4)), width = integer(params, 5);
  int64_t x_row = integer(params, 6), out_row = integer(params, 7);
  float eps = number(params, 8);
  for (int64_t r; (r = take(team, rows)) >= 0;)
    norm_row(x + r * x_row, weight, out + r * out_row, width, eps);
}

template <typename T> void layer_norm(void **params, Team *team) {
  const T *x = pointer<T>(params, 0);
  const float *weight = pointer<float>(params, 1), *bias = pointer<float>(params, 2);
  T *out = pointer<T>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5)), width = integer(params, 6);
  int64_t x_row = integer(params, 7), out_row = integer(params, 8);
  float eps = number(params, 9);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    const T *from = x + r * x_row;
    T *to = out + r * out_row;
    float mean = sum_of_all(from, width) / width;
    float factor = 1.0f / __builtin_sqrtf(sum_of_squares(from, width, mean) / width + eps);
    for (int64_t i = 0; i < width; i++)
      store(to + i, (wide(from[i]) - mean) * factor * weight[i] + bias[i]);
  }
}

template <typename T> void add_norm(void **params, Team *team) {
  const T *a = pointer<T>(params, 0), *b = pointer<T>(params, 1);
  const T *weight = pointer<T>(params, 2);
  T *total = pointer<T>(params, 3), *out = pointer<T>(params, 4);
  int64_t rows = real_rows(params, 5, integer(params, 6)), width = integer(params, 7);
  int64_t a_row = integer(params, 8), b_row = integer(params, 9);
  int64_t total_row = integer(params, 10), out_row = integer(params, 11);
  float eps = number(params, 12), *sum = (float *)team->scratch;
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    for (int64_t i = 0; i < width; i++)
      sum[i] = wide(a[r * a_row + i]) + wide(b[r * b_row + i]);
    if (total)
      copy(total + r * total_row, sum, width);
    norm_row(sum, weight, out + r * out_row, width, eps);
  }
}

template <typename T> void rotate(void **params, Team *team) {
  const T *x = pointer<T>(params, 0);
  const float *table = pointer<float>(params, 1);
  T *out = pointer<T>(params, 2);
  int64_t most = integer(params, 4), rows = real_rows(params, 3, most);
  int64_t heads = integer(params, 5), width = integer(params, 6), offset = integer(params, 7);
  int64_t dim = integer(params, 8), interleaved = integer(params, 9);
  int64_t x_row = integer(params, 10), x_head = integer(params, 11);
  int64_t out_row = integer(params, 12), out_head = integer(params, 13);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    const float *cos = table + r * dim, *sin = table + (most + r) * dim;
    for (int64_t h = 0; h < heads; h++) {
      const T *from = x + r * x_row + h * x_head;
      T *to = out + r * out_row + h * out_head;
      for (int64_t i = 0; i < offset; i++)
        to[i] = from[i];
      for (int64_t i = offset + dim; i < width; i++)
        to[i] = from[i];
      from += offset;
      to += offset;
      if (interleaved) {
        for (int64_t i = 0; i < dim; i += 2) {
          float even = wide(from[i]), odd = wide(from[i + 1]);
          store(to + i, even * cos[i] + odd * sin[i]);
          store(to + i + 1, odd * cos[i + 1] + even * sin[i + 1]);
        }
      } else {
        int64_t half = dim / 2;
        for (int64_t i = 0; i < half; i++) {
          float low = wide(from[i]), high = wide(from[i + half]);
          store(to + i, low * cos[i] + high * sin[i]);
          store(to + i + half, high * cos[i + half] + low * sin[i + half]);
        }
      }
    }
  }
}

template <typename X, typename T> void append(void **params, Team *team) {
  T *cache = pointer<T>(params, 0);
  const int32_t *slots = pointer<int32_t>(params, 1);
  const X *first = pointer<X>(params, 2), *second = pointer<X>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5)), width = integer(params, 6);
  int64_t many = integer(params, 7), many_too = integer(params, 8);
  int64_t first_row = integer(params, 9), second_row = integer(params, 10);
  int64_t num_slots = integer(params, 11);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    int64_t slot = slots[r];
    if (!is_of(slot, num_slots))
      continue;
    T *to = cache + slot * width;
    copy(to, first + r * first_row, many);
    if (second)
      copy(to + many, second + r * second_row, many_too);
  }
}

template <typename X, typename T> void add(void **params, Team *team) {
  const X *a = pointer<X>(params, 0), *b = pointer<X>(params, 1);
  T *out = pointer<T>(params, 2);
  int64_t rows = real_rows(params, 3, integer(params, 4)), width = integer(params, 5);
  int64_t a_row = integer(params, 6), b_row = integer(params, 7), out_row = integer(params, 8);
  for (int64_t r; (r = take(team, rows)) >= 0;)
    for (int64_t i = 0; i < width; i++)
      store(out + r * out_row + i, wide(a[r * a_row + i]) + wide(b[r * b_row + i]));
}

} // namespace

// Parameters: x, weight, out, num_rows, rows, width, row of x, row of out, eps.
KERNEL_OF(rms_norm_f32, rms_norm<float>)
KERNEL_OF(rms_norm_bf16, rms_norm<bf16>)

// Weight and bias are f32. By the types of x, these and out.
// Parameters: x, weight, bias, out, num_rows, rows, width, row of x, row of out, eps.
KERNEL_OF(layer_norm_f32, layer_norm<float>)
KERNEL_OF(layer_norm_bf16_f32_bf16, layer_norm<bf16>)

// total = a + b (where it is wanted), out = norm of the sum before it is rounded, which lies in
// scratch: a row of f32.
// Parameters: a, b, weight, total or null, out, num_rows, rows, width, rows of a, b, total, out,
// eps.
KERNEL_OF(add_norm_f32, add_norm<float>)
KERNEL_OF(add_norm_bf16, add_norm<bf16>)

// Elements offset .. offset + dim of each head are rotated by the row's angles, others copied.
// table [2, T, dim]: cosines, then signed sines. x and out [T, heads, width], any strides.
// Parameters: x, table, out, num_rows, T, heads, width, offset, dim, whether pairs lie side by
// side, row and head of x, row and head of out.
KERNEL_OF(rotate_f32, rotate<float>)
KERNEL_OF(rotate_bf16, rotate<bf16>)

// Parts of a row side by side at its slot of the cache [slots, width], nowhere where it has no such
// slot. By the types of parts and cache.
// Parameters: cache, slots, first part, second or null, num_rows, rows, width, widths of the two,
// their rows; the driver adds the slots that there are.
KERNEL_OF(append_f32_f32, append<float, float>)
KERNEL_OF(append_f32_bf16, append<float, bf16>)
KERNEL_OF(append_bf16_f32, append<bf16, float>)
KERNEL_OF(append_bf16_bf16, append<bf16, bf16>)

// By the types of a, b and out.
// Parameters: a, b, out, num_rows, rows, width, rows of a, b, out.
KERNEL_OF(add_f32, add<float, float>)
KERNEL_OF(add_f32_f32_bf16, add<float, bf16>)
