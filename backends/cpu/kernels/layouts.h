// Numbers of a cached row as f32, by the layout of the cache (`ir/contract/cache_layout.py`).

#pragma once

#include "cache.h"
#include "numbers.h"

namespace {

const int64_t UNDER_A_SCALE = 128; // numbers of a row

// Numbers of one type.
template <typename T> struct Plain {
  typedef T Place;
  int64_t latent, width;
  int64_t places() const { return width; } // of a row
  vf at(const T *row, int64_t i) const { return load(row + i); }
  float one(const T *row, int64_t i) const { return wide(row[i]); }
};
template <> inline vf Plain<f8>::at(const f8 *row, int64_t i) const {
  return load(row + i) * same(F8_FACTOR);
}
template <> inline float Plain<f8>::one(const f8 *row, int64_t i) const {
  return wide(row[i]) * F8_FACTOR;
}

inline float unaligned(const uint8_t *from) {
  float value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

// fp8_656: e4m3 latents, their scales in f32, bf16 behind them.
struct ScaledLatents {
  typedef uint8_t Place;
  int64_t latent, width;
  int64_t behind() const { return latent + 4 * parts(latent, UNDER_A_SCALE); }
  int64_t places() const { return behind() + 2 * (width - latent); }
  float scale(const uint8_t *row, int64_t i) const {
    return F8_FACTOR * unaligned(row + latent + i / UNDER_A_SCALE * 4);
  }
  vf at(const uint8_t *row, int64_t i) const { // i is a multiple of LANES
    if (i + LANES <= latent)
      return load((const f8 *)row + i) * same(scale(row, i));
    if (i >= latent)
      return load((const bf16 *)(row + behind()) + i - latent);
    vf held;
    for (int v = 0; v < LANES; v++)
      held[v] = one(row, i + v);
    return held;
  }
  float one(const uint8_t *row, int64_t i) const {
    return i < latent ? wide(((const f8 *)row)[i]) * scale(row, i)
                      : wide(((const bf16 *)(row + behind()))[i - latent]);
  }
};

} // namespace
