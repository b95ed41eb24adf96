// Numbers as they lie in memory: each read as f32, in which everything is computed and summed, and
// written rounded to nearest even, once.

#pragma once

#include "vector_math.h"

struct bf16 {
  uint16_t bits;
};

struct f8 { // e4m3fn
  uint8_t bits;
};

typedef uint32_t vu __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int16_t vs __attribute__((vector_size(2 * LANES), aligned(2)));
typedef _Float16 vf16 __attribute__((vector_size(2 * LANES), aligned(2)));
typedef uint8_t vb __attribute__((vector_size(LANES), aligned(1), may_alias));

static inline float wide(float x) { return x; }
static inline float wide(bf16 x) { return __builtin_bit_cast(float, (uint32_t)x.bits << 16); }

static inline vf load(const float *x) { return *(const vf *)x; }
static inline vf load(const bf16 *x) {
  return (vf)(__builtin_convertvector(*(const vh *)x, vu) << 16);
}

// Times 2^-8, which its scales make up for (F8_FACTOR): the bits of e4m3 are those of f16 whose
// exponent is 8 larger, so that one instruction widens them, small ones too. Where all but the sign
// are set it is NaN, and one more carries into the bit above, with which it is f16's, too.
const float F8_FACTOR = 256.0f;
static inline vf load(const f8 *x) {
  vh bits = __builtin_convertvector(*(const vb *)x, vh) << 8;
  vh moved = (vh)((vs)bits >> 1) & 0xbf80; // the sign stays
  return __builtin_convertvector((vf16)(moved | ((moved + 0x80) & 0x4000)), vf);
}
static inline float wide(f8 x) {
  uint16_t moved = (uint16_t)((int16_t)(x.bits << 8) >> 1 & 0xbf80);
  return __builtin_bit_cast(_Float16, (uint16_t)(moved | ((moved + 0x80) & 0x4000)));
}

// The bits of x rounded to 16, in the upper half. NaN stays NaN.
static inline uint32_t rounded_bits(float x) {
  uint32_t bits = __builtin_bit_cast(uint32_t, x);
  uint32_t even = bits + 0x7fff + (bits >> 16 & 1);
  return x == x ? even : bits | 0x400000;
}
static inline vu rounded_bits(vf x) {
  vu bits = (vu)x, even = bits + 0x7fff + (bits >> 16 & 1), real = (vu)(x == x);
  return (even & real) | ((bits | 0x400000) & ~real);
}

static inline void store(float *to, float x) { *to = x; }
static inline void store(bf16 *to, float x) { to->bits = (uint16_t)(rounded_bits(x) >> 16); }
static inline void store(float *to, vf x) { *(vf *)to = x; }
static inline void store(bf16 *to, vf x) {
  *(vh *)to = __builtin_convertvector(rounded_bits(x) >> 16, vh);
}

// What a number is once it was stored as a T.
template <typename T> static inline vf stored(vf x);
template <> inline vf stored<float>(vf x) { return x; }
template <> inline vf stored<bf16>(vf x) { return (vf)(rounded_bits(x) & 0xffff0000u); }

// `count` numbers from one place to another.
template <typename To, typename From>
static inline void copy(To *to, const From *from, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    store(to + i, load(from + i));
  for (; i < count; i++)
    store(to + i, wide(from[i]));
}
