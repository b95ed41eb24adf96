// A row of logits in parts, each a chunk of its own: what one launch leaves of a part to the next.
// Parts begin at the same ids whatever the threads, so a row's sums have the same bits.

#pragma once

#include "doubles.h"

const float NOTHING = -__builtin_inff();

struct Part { // of a row
  double score; // the best of its ids, and whose it is
  double sum;   // of e^(x - top)
  float top;    // the largest logit, NaN where there is one
  int32_t id;
};

// Logits from id i on, -inf behind the part's end.
static inline vf logits_at(const float *x, int64_t i, int64_t end) {
  if (i + LANES <= end)
    return load(x + i);
  vf found = same(NOTHING);
  for (int64_t lane = 0; i + lane < end; lane++)
    found[lane] = x[i + lane];
  return found;
}

template <typename M> static inline bool any(M mask) {
#if defined(__clang__)
  return __builtin_reduce_or(mask);
#else // what the sanitisers' builds are made by
  bool found = false;
  for (int v = 0; v < (int)(sizeof mask / sizeof mask[0]); v++)
    found |= mask[v] != 0;
  return found;
#endif
}

static inline float larger_of(float a, float b) { // NaN is larger than all
  return a != a ? a : b > a || b != b ? b : a;
}

static inline float top_of(const float *x, int64_t begin, int64_t end) {
  vf most = same(NOTHING);
  vi broken = {};
  for (int64_t i = begin; i < end; i += LANES) {
    vf held = logits_at(x, i, end);
    most = chosen(held > most, held, most);
    broken |= held != held;
  }
  if (any(broken))
    return __builtin_nanf("");
  float top = most[0];
  for (int lane = 1; lane < LANES; lane++)
    top = larger_of(top, most[lane]);
  return top;
}

static inline float top_of_parts(const Part *own, int64_t count) {
  float top = own[0].top;
  for (int64_t p = 1; p < count; p++)
    top = larger_of(top, own[p].top);
  return top;
}

static inline vf below(vf x, vf top) { return chosen(x < top, x - top, same(0.0f)); }

static inline void sum_part(const float *x, int64_t begin, int64_t end, Part *own) {
  own->top = top_of(x, begin, end);
  vd sum = {};
  for (int64_t i = begin; i < end; i += LANES)
    sum += wide(exp_of(below(logits_at(x, i, end), same(own->top))));
  own->sum = 0;
  for (int lane = 0; lane < LANES; lane++)
    own->sum += sum[lane];
}

// Log-probabilities of a row: NaN where it has a NaN, a +inf or no finite logit, and of no id of it.
struct Logprobs {
  double top, log;
  Logprobs(const Part *own, int64_t count) : top(top_of_parts(own, count)) {
    double sum = 0;
    for (int64_t p = 0; p < count; p++)
      sum += own[p].sum * (own[p].top < top ? exp_below(own[p].top - top) : 1.0);
    log = log_of(sum);
  }
  float of(const float *x, int64_t id, int64_t width) const {
    bool is_finite = __builtin_fabs(top) < __builtin_inf();
    return is_finite && is_of(id, width) ? (float)(x[id] - top - log) : __builtin_nanf("");
  }
};

// Which ids a chunk is: part `chunk % parts` of row `chunk / parts`.
struct Piece {
  int64_t row, part, begin, end;
  Piece(int64_t chunk, int64_t count, int64_t ids, int64_t width)
      : row(chunk / count), part(chunk % count), begin(part * ids),
        end(smaller(begin + ids, width)) {}
};

// u32 in the order of logits; zeros of both signs are equal, NaN is behind all.
static inline uint32_t order_of(float x) {
  uint32_t bits = __builtin_bit_cast(uint32_t, x + 0.0f);
  return x != x ? 0 : bits >> 31 ? ~bits : bits | 0x80000000u;
}

// In the order of a row: the largest logit first, of equals the lowest id. Never 0.
static inline uint64_t key_of(float x, int64_t id) {
  return (uint64_t)order_of(x) << 32 | (0xffffffffu - (uint32_t)id);
}
static inline float logit_of(uint64_t key) { // of one that is no NaN
  uint32_t order = (uint32_t)(key >> 32);
  return __builtin_bit_cast(float, order >> 31 ? order & 0x7fffffffu : ~order);
}
static inline int32_t id_of(uint64_t key) { return (int32_t)(0xffffffffu - (uint32_t)key); }
