// Numbers of 8 bits beside e4m3 weights: int8, and e4m3 as it is written, with a scale for a block
// of a row or without.

#pragma once

#include "numbers.h"

struct s8 {
  int8_t value;
};

typedef int8_t vsb __attribute__((vector_size(LANES), aligned(1), may_alias));

static inline vf load(const s8 *x) {
  return __builtin_convertvector(__builtin_convertvector(*(const vsb *)x, vi), vf);
}
static inline float wide(s8 x) { return x.value; }

const float F8_MOST = 448.0f;
const float LEAST_AMAX = 1e-4f; // official act_quant: keeps the scale of a block of zeros above 0

// The code of e4m3 that is nearest, even ones of two; what is too large is the largest. NaN is NaN.
static inline vu f8_codes(vf x) {
  vu sign = (vu)x >> 24 & 0x80;
  vf size = (vf)((vu)x & 0x7fffffff);
  vf held = chosen(size > same(F8_MOST), same(F8_MOST), size);
  vu bits = (vu)held;
  vu normal = ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120 << 3);
  // below 2^-6 codes are 2^-9 apart, as numbers beside 2^14 are
  vu small = (vu)(held + same(16384.0f)) - 0x46800000;
  vu found = (vu)chosen((vi)(held < same(0.015625f)), (vf)small, (vf)normal);
  return sign | (vu)chosen((vi)(x == x), (vf)found, (vf)(vu{} + 0x7f));
}
static inline void store(f8 *to, vf x) { *(vb *)to = __builtin_convertvector(f8_codes(x), vb); }
static inline void store(f8 *to, float x) {
  vf held = {x}; // not `same`, which makes 0 of -0
  to->bits = (uint8_t)f8_codes(held)[0];
}

// The largest magnitude; NaN where one is.
template <typename T> static inline float block_amax(const T *x, int64_t count) {
  vf most = same(0.0f);
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vf size = (vf)((vu)load(x + i) & 0x7fffffff);
    most = chosen((size > most) | (size != size), size, most);
  }
  float found = 0.0f;
  for (int v = 0; v < LANES; v++)
    found = most[v] > found || most[v] != most[v] ? most[v] : found;
  for (; i < count; i++) {
    float size = __builtin_fabsf(wide(x[i]));
    found = size > found || size != size ? size : found;
  }
  return found;
}

// The scale of a block; with `powers` the power of two that is not below it. NaN and infinity stay.
static inline float block_scale(float amax, bool powers) {
  float scale = (amax < LEAST_AMAX ? LEAST_AMAX : amax) / F8_MOST;
  uint32_t bits = __builtin_bit_cast(uint32_t, scale);
  uint32_t above = (bits >> 23) + ((bits & 0x7fffff) != 0);
  return powers && above < 255 ? __builtin_bit_cast(float, above << 23) : scale;
}

// One block of a row as e4m3, and its scale.
template <typename T>
static inline float quantise_block(f8 *to, const T *x, int64_t count, bool powers) {
  float scale = block_scale(block_amax(x, count), powers);
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    store(to + i, load(x + i) / same(scale));
  for (; i < count; i++)
    store(to + i, wide(x[i]) / scale);
  return scale;
}

// A block of e4m3 with its scale as f32.
static inline void widen_block(float *to, const f8 *x, int64_t count, float scale) {
  float factor = F8_FACTOR * scale;
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    store(to + i, load(x + i) * same(factor));
  for (; i < count; i++)
    to[i] = wide(x[i]) * factor;
}
