// What 8-bit caches and activations ask for beside products: the rotation before rounding, the
// rounding with scales, and rows of bytes in the cache.

#include "eight_bits.h"
#include "team.h"

namespace {

template <typename T> void quantise(void **params, Team *team) {
  const T *x = pointer<T>(params, 0);
  f8 *out = pointer<f8>(params, 1);
  float *scales = pointer<float>(params, 2);
  int64_t rows = real_rows(params, 3, integer(params, 4)), heads = integer(params, 5);
  int64_t width = integer(params, 6), block = integer(params, 7);
  bool powers = integer(params, 8);
  int64_t x_row = integer(params, 9), x_head = integer(params, 10);
  int64_t out_row = integer(params, 11), out_head = integer(params, 12);
  int64_t scale_row = integer(params, 13), scale_head = integer(params, 14);
  for (int64_t r; (r = take(team, rows)) >= 0;)
    for (int64_t h = 0; h < heads; h++) {
      const T *from = x + r * x_row + h * x_head;
      f8 *to = out + r * out_row + h * out_head;
      float *own = scales + r * scale_row + h * scale_head;
      for (int64_t i = 0; i < width; i += block)
        own[i / block] = quantise_block(to + i, from + i, smaller(block, width - i), powers);
    }
}

// Sums and differences of numbers `apart`, for all pairs: one factor of Sylvester's matrix.
inline void add_and_subtract(float *x, int64_t width, int64_t apart) {
  for (int64_t first = 0; first < width; first += 2 * apart) {
    int64_t i = first;
    for (; i + LANES <= first + apart; i += LANES) {
      vf a = load(x + i), b = load(x + i + apart);
      store(x + i, a + b);
      store(x + i + apart, a - b);
    }
    for (; i < first + apart; i++) {
      float a = x[i], b = x[i + apart];
      x[i] = a + b;
      x[i + apart] = a - b;
    }
  }
}

template <typename T> void hadamard(void **params, Team *team) {
  const T *x = pointer<T>(params, 0);
  T *out = pointer<T>(params, 1);
  int64_t rows = real_rows(params, 2, integer(params, 3)), heads = integer(params, 4);
  int64_t width = integer(params, 5);
  int64_t x_row = integer(params, 6), x_head = integer(params, 7);
  int64_t out_row = integer(params, 8), out_head = integer(params, 9);
  float *held = (float *)team->scratch, factor = 1.0f / __builtin_sqrtf((float)width);
  for (int64_t r; (r = take(team, rows)) >= 0;)
    for (int64_t h = 0; h < heads; h++) {
      copy(held, x + r * x_row + h * x_head, width);
      for (int64_t apart = 1; apart < width; apart *= 2)
        add_and_subtract(held, width, apart);
      for (int64_t i = 0; i < width; i++)
        store(out + r * out_row + h * out_head + i, held[i] * factor);
    }
}

template <typename T> void append_scaled(void **params, Team *team) {
  uint8_t *cache = pointer<uint8_t>(params, 0);
  const int32_t *slots = pointer<int32_t>(params, 1);
  const uint8_t *values = pointer<uint8_t>(params, 2);
  const float *scales = pointer<float>(params, 3);
  const T *rest = pointer<T>(params, 4);
  int64_t rows = real_rows(params, 5, integer(params, 6)), width = integer(params, 7);
  int64_t scale_bytes = 4 * integer(params, 8), many = integer(params, 9);
  int64_t page_tokens = integer(params, 10), is_paged = integer(params, 11);
  int64_t values_row = integer(params, 12), scales_row = integer(params, 13);
  int64_t rest_row = integer(params, 14), num_slots = integer(params, 15) * page_tokens;
  int64_t row_bytes = width + scale_bytes + 2 * many;
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    int64_t slot = slots[r], token = is_paged ? slot % page_tokens : 0;
    if (!is_of(slot, num_slots))
      continue;
    uint8_t *first = cache + (slot - token) * row_bytes;
    uint8_t *behind = is_paged ? first + page_tokens * width + token * scale_bytes : first + width;
    __builtin_memcpy(first + token * width, values + r * values_row, (uint64_t)width);
    __builtin_memcpy(behind, scales + r * scales_row, (uint64_t)scale_bytes);
    if (rest)
      copy((bf16 *)(behind + scale_bytes), rest + r * rest_row, many);
  }
}

} // namespace

// out [T, heads, width] of e4m3 and the scale of each block: any strides, a head's numbers side by
// side. By the type of x.
// Parameters: x, out, scales, num_rows, T, heads, width, block, whether scales are powers of two, row
// and head of x, of out, of scales.
KERNEL_OF(quantise_f32_f8, quantise<float>)
KERNEL_OF(quantise_bf16_f8, quantise<bf16>)

// x [T, heads, width] times Sylvester's matrix over the root of the width, a power of two, in f32.
// Parameters: x, out, num_rows, T, heads, width, row and head of x, of out. Scratch: a head of f32.
KERNEL_OF(hadamard_f32, hadamard<float>)
KERNEL_OF(hadamard_bf16, hadamard<bf16>)

// A row's e4m3 values, their scales and, as bf16, what comes with them, at its slot, nowhere where
// the cache has no such slot: side by side, or a page's values of all tokens before all scales. By the
// type of the rest.
// Parameters: cache, slots, values, scales, rest or null, num_rows, T, width, scales of a row, width
// of the rest, page_tokens, whether pages hold values before scales, rows of values, scales, rest; the
// driver adds the cache's pages.
KERNEL_OF(append_scaled_f32, append_scaled<float>)
KERNEL_OF(append_scaled_bf16, append_scaled<bf16>)
