// Sums and exponentials of eight numbers. No library: the same bits wherever the code runs.

#pragma once

#include "team.h"

static inline v8 same(float value) { return v8{} + value; }

// Pairwise, in an order of its own.
static inline float sum_of(v8 v) {
  float a = (v[0] + v[4]) + (v[2] + v[6]);
  float b = (v[1] + v[5]) + (v[3] + v[7]);
  return a + b;
}

static inline v8 chosen(i8 mask, v8 yes, v8 no) {
  return (v8)(((i8)yes & mask) | ((i8)no & ~mask));
}

// e^x. Cody and Waite's reduction by ln 2, then a polynomial of degree 6 (Cephes' coefficients):
// within 2 units of the last place; 0 below -87.3, infinity above 88.7, NaN of NaN.
static inline v8 exp_of(v8 x) {
  const float least = -87.33654f, most = 88.72283f;
  v8 held = chosen(x < same(least), same(least), x);
  held = chosen(held > same(most), same(most), held);
  const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number
  v8 n = (held * same(1.44269504f) + same(magic)) - same(magic);
  v8 r = held - n * same(0.693359375f) + n * same(2.12194440e-4f);
  v8 p = same(1.9875691500e-4f);
  p = p * r + same(1.3981999507e-3f);
  p = p * r + same(8.3334519073e-3f);
  p = p * r + same(4.1665795894e-2f);
  p = p * r + same(1.6666665459e-1f);
  p = p * r + same(5.0000001201e-1f);
  p = p * r * r + r + same(1.0f);
  // 2^n in two factors: n reaches 128, which one exponent does not hold.
  i8 whole = __builtin_convertvector(n, i8), half = whole >> 1;
  v8 first = (v8)((half + 127) << 23), second = (v8)((whole - half + 127) << 23);
  v8 result = p * first * second;
  result = chosen(x < same(least), same(0.0f), result);
  result = chosen(x > same(most), same(__builtin_inff()), result);
  return chosen(x == x, result, x);
}

static inline float exp_one(float x) { return exp_of(same(x))[0]; }

// x / (1 + e^-x).
static inline v8 silu(v8 x) { return x / (same(1.0f) + exp_of(-x)); }
