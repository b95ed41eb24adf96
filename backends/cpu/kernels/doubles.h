// Exponentials and logarithms in f64, where f32 would decide which id is picked. No library.

#pragma once

#include "numbers.h"

typedef double vd __attribute__((vector_size(8 * LANES), aligned(8)));
typedef int64_t vl __attribute__((vector_size(8 * LANES), aligned(8)));

static inline vd both(double value) { return vd{} + value; }
static inline vd wide(vf x) { return __builtin_convertvector(x, vd); }

static inline vd chosen(vl mask, vd yes, vd no) {
  return (vd)(((vl)yes & mask) | ((vl)no & ~mask));
}

// ln 2 in two parts, of which the first has 32 bits, so that whole multiples of it are exact.
const double LN2 = 0x1.62e42feep-1, LN2_REST = 0x1.a39ef35793c76p-33;

// e^x of x that are 0 or less: Cody and Waite's reduction by ln 2, then Taylor's polynomial of
// degree 13, which leaves out less than 1e-17; 0 below -700.
static inline vd exp_below(vd x) {
  const double least = -700.0, magic = 0x1.8p52; // adding it rounds to a whole number
  vd held = chosen(x < both(least), both(least), x);
  vd moved = held * both(1.4426950408889634) + both(magic);
  vd n = moved - both(magic);
  vd r = held - n * both(LN2) - n * both(LN2_REST);
  const double shares[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                           1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                           1.0 / 120,        1.0 / 24,        1.0 / 6,        1.0 / 2,
                           1.0,              1.0};
  vd p = both(shares[0]);
  for (int i = 1; i < 14; i++)
    p = p * r + both(shares[i]);
  vd result = (vd)((vl)p + ((vl)moved << 52)); // n stands in the low bits of `moved`
  return chosen(x < both(least), both(0.0), result);
}

static inline double exp_below(double x) { return exp_below(both(x))[0]; }

// The natural logarithm of a positive, normal number: 2^k m with m about 1, and the series of
// fdlibm's e_log.c in s = (m - 1) / (m + 1), within a unit of the last place.
static inline double log_of(double x) {
  int64_t bits = __builtin_bit_cast(int64_t, x);
  int64_t k = (bits - 0x3fe6a09e667f3bcd) >> 52; // sqrt(1/2): m lies between that and twice it
  double f = __builtin_bit_cast(double, bits - (k << 52)) - 1.0;
  double s = f / (2.0 + f), z = s * s;
  double p = 1.479819860511658591e-01;
  p = p * z + 1.531383769920937332e-01;
  p = p * z + 1.818357216161805012e-01;
  p = p * z + 2.222219843214978396e-01;
  p = p * z + 2.857142874366239149e-01;
  p = p * z + 3.999999999940941908e-01;
  p = p * z + 6.666666666666735130e-01;
  double half = 0.5 * f * f;
  return k * LN2 - ((half - (s * (half + p * z) + k * LN2_REST)) - f);
}
