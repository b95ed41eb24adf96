// Sums and exponentials of as many numbers as a register holds. No library: the same bits wherever
// code for the same instructions runs.

#pragma once

#include "team.h"

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__aarch64__)
#define LANES 4
#else
#define LANES 8
#endif

typedef float vf __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * LANES), aligned(4)));

// Less 0 is what a compiler knows to be the value itself; 0 and a value would be added, as -0 is not.
static inline vf same(float value) { return value - vf{}; }

static inline vf chosen(vi mask, vf yes, vf no) {
  return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

// The largest lane.
static inline float largest_of(vf x) {
#if defined(__clang__)
  return __builtin_reduce_max(x);
#else // what the sanitisers' builds are made by
  float found = x[0];
  for (int v = 1; v < LANES; v++)
    found = x[v] > found ? x[v] : found;
  return found;
#endif
}

// Neighbours of a and of b are added up, those of a first in each pair; then neighbours of these.
#if LANES == 16
static inline vf join1(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
         __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
static inline vf join2(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
         __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
static inline vf join4(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
         __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
}
static inline vf join8(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
static inline vf sums_of(const vf *v) {
  vf a = join4(join2(join1(v[0], v[1]), join1(v[2], v[3])),
               join2(join1(v[4], v[5]), join1(v[6], v[7])));
  vf b = join4(join2(join1(v[8], v[9]), join1(v[10], v[11])),
               join2(join1(v[12], v[13]), join1(v[14], v[15])));
  return join8(a, b);
}
#elif LANES == 8
static inline vf join1(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +
         __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
}
static inline vf join2(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
         __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
}
static inline vf join4(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}
static inline vf sums_of(const vf *v) {
  return join4(join2(join1(v[0], v[1]), join1(v[2], v[3])),
               join2(join1(v[4], v[5]), join1(v[6], v[7])));
}
#else
static inline vf join1(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
}
static inline vf join2(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
}
static inline vf sums_of(const vf *v) { return join2(join1(v[0], v[1]), join1(v[2], v[3])); }
#endif
// sums_of: of LANES vectors, each one's sum.

// One vector's sum, in the same order.
static inline float sum_of(vf v) {
#if LANES == 16
  return join8(join4(join2(join1(v, v), v), v), v)[0];
#elif LANES == 8
  return join4(join2(join1(v, v), v), v)[0];
#else
  return join2(join1(v, v), v)[0];
#endif
}

// e^x. Cody and Waite's reduction by ln 2, then a polynomial of degree 6 (Cephes' coefficients):
// within 2 units of the last place; 0 below -87.3, infinity above 88.7, NaN of NaN.
static inline vf exp_of(vf x) {
  const float least = -87.33654f, most = 88.72283f;
  vf held = chosen(x < same(least), same(least), x);
  held = chosen(held > same(most), same(most), held);
  const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number
  vf n = (held * same(1.44269504f) + same(magic)) - same(magic);
  vf r = held - n * same(0.693359375f) + n * same(2.12194440e-4f);
  vf p = same(1.9875691500e-4f);
  p = p * r + same(1.3981999507e-3f);
  p = p * r + same(8.3334519073e-3f);
  p = p * r + same(4.1665795894e-2f);
  p = p * r + same(1.6666665459e-1f);
  p = p * r + same(5.0000001201e-1f);
  p = p * r * r + r + same(1.0f);
  // 2^n in two factors: n reaches 128, which one exponent does not hold.
  vi whole = __builtin_convertvector(n, vi), half = whole >> 1;
  vf first = (vf)((half + 127) << 23), second = (vf)((whole - half + 127) << 23);
  vf result = p * first * second;
  result = chosen(x < same(least), same(0.0f), result);
  result = chosen(x > same(most), same(__builtin_inff()), result);
  return chosen(x == x, result, x);
}

static inline float exp_one(float x) { return exp_of(same(x))[0]; }

// x / (1 + e^-x).
static inline vf silu(vf x) { return x / (same(1.0f) + exp_of(-x)); }
