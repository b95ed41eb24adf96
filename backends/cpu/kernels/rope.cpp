// Angles of a step's rotations, in f64: at position 100,000 f32 would lose the third decimal.

#include "doubles.h"

namespace {

const int64_t MOST_PAIRS = 512;

struct Turn {
  double sine, cosine;
};

// Less the whole quarters, pi / 2 in three parts of which the first two have 33 bits; then fdlibm's
// k_sin.c and k_cos.c. Of angles up to 2^31 within 1e-7, of those below 2^20 within rounding.
inline Turn turn_of(double angle) {
  double quarters = __builtin_rint(angle * 0x1.45f306dc9c883p-1);
  double x = angle - quarters * 0x1.921fb544p0;
  x = x - quarters * 0x1.0b4611a6p-34;
  x = x - quarters * 0x1.3198a2e037073p-69;
  double z = x * x;
  double s = 1.58969099521155010221e-10;
  s = s * z - 2.50507602534068634195e-08;
  s = s * z + 2.75573137070700676789e-06;
  s = s * z - 1.98412698298579493134e-04;
  s = s * z + 8.33333333332248946124e-03;
  s = s * z - 1.66666666666666324348e-01;
  double c = -1.13596475577881948265e-11;
  c = c * z + 2.08757232129817482790e-09;
  c = c * z - 2.75573143513906633035e-07;
  c = c * z + 2.48015872894767294178e-05;
  c = c * z - 1.38888888888741095749e-03;
  c = c * z + 4.16666666666666019037e-02;
  double sine = x + x * z * s, cosine = 1.0 - 0.5 * z + z * z * c;
  switch ((int64_t)quarters & 3) {
  case 0:
    return {sine, cosine};
  case 1:
    return {cosine, -sine};
  case 2:
    return {-sine, -cosine};
  default:
    return {-cosine, sine};
  }
}

} // namespace

extern "C" {

// Table [2, T, dim]: cosines, then signed sines, as `rotate` takes them. Pair i turns by
// theta^(-2 i / dim) a position, which YaRN divides by the factor, as much as the pair lies from
// `low` on to `high` (arXiv:2309.00071, section 3.2).
// Parameters: positions, table, num_rows, T, dim, whether pairs lie side by side, low, high, theta,
// factor, magnitude.
void KERNEL(rope_table)(void **params, Team *team) {
  const int32_t *positions = pointer<int32_t>(params, 0);
  float *table = pointer<float>(params, 1);
  int64_t most = integer(params, 3), rows = real_rows(params, 2, most), dim = integer(params, 4);
  int64_t interleaved = integer(params, 5), low = integer(params, 6), pairs = dim / 2;
  double span = (double)(integer(params, 7) - low), theta = number(params, 8);
  double factor = number(params, 9), magnitude = number(params, 10);
  double frequencies[MOST_PAIRS];
  for (int64_t i = 0; i < pairs; i++) {
    double ramp = (double)(i - low) / (span > 1e-3 ? span : 1e-3);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    double whole = exp_below(log_of(theta) * (-2.0 * (double)i / (double)dim));
    frequencies[i] = whole * (ramp / factor + (1 - ramp));
  }
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    float *cosines = table + r * dim, *sines = table + (most + r) * dim;
    for (int64_t i = 0; i < pairs; i++) {
      Turn turn = turn_of(positions[r] * frequencies[i]);
      int64_t first = interleaved ? 2 * i : i, second = interleaved ? first + 1 : pairs + i;
      cosines[first] = cosines[second] = (float)(turn.cosine * magnitude);
      sines[second] = (float)(turn.sine * magnitude);
      sines[first] = -sines[second];
    }
  }
}
}
