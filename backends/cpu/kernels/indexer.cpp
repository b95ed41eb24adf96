// The indexer's choice: logits of a row against cached keys, and the positions of the k best.

#include "cache.h"
#include "numbers.h"
#include "team.h"

namespace {

const int64_t SPAN = 256; // positions of a chunk where a row's logits are cut

const int KEYS = 4, HEADS_AT_ONCE = LANES / KEYS; // as many products as a vector has places

// One row's queries as f32, filled up by heads of zeros, and each one's weight times the scale at
// all places of its products.
struct Asked {
  int64_t heads, dim;
  float *q, *shares; // dim floats and KEYS for each of `heads`
  template <typename T>
  void take(const T *from, int64_t q_head, int64_t real, const float *weights, float scale) {
    for (int64_t h = 0; h < heads; h++) {
      if (h < real)
        copy(q + h * dim, from + h * q_head, dim);
      else
        for (int64_t i = 0; i < dim; i++)
          q[h * dim + i] = 0.0f;
      for (int i = 0; i < KEYS; i++)
        shares[h * KEYS + i] = h < real ? weights[h] * scale : 0.0f;
    }
  }
};

// Logits of positions begin .. end: the sum over heads of weight * relu(q . key).
template <typename T>
inline void logits_of(const Asked &row, const Cached<T> &keys, int64_t begin, int64_t end,
                      float *out) {
  for (int64_t p = begin; p < end; p += KEYS) {
    int64_t held = smaller(KEYS, end - p), dim = row.dim;
    const T *key[KEYS] = {keys[p]};
    bool lie_together = keys.in_a_row(p) >= held;
#pragma GCC unroll 4
    for (int64_t i = 1; i < KEYS; i++) {
      int64_t next = smaller(i, held - 1);
      key[i] = lie_together ? key[0] + next * dim : keys[p + next];
    }
    vf total = same(0.0f);
    for (int64_t first = 0; first < row.heads; first += HEADS_AT_ONCE) {
      const float *asked = row.q + first * dim;
      vf sums[LANES];
#pragma GCC unroll 16
      for (int i = 0; i < LANES; i++)
        sums[i] = same(0.0f);
      int64_t d = 0;
      for (; d + LANES <= dim; d += LANES) {
        vf at[KEYS];
#pragma GCC unroll 4
        for (int i = 0; i < KEYS; i++)
          at[i] = load(key[i] + d);
#pragma GCC unroll 4
        for (int h = 0; h < HEADS_AT_ONCE; h++) {
          vf own = load(asked + h * dim + d);
#pragma GCC unroll 4
          for (int i = 0; i < KEYS; i++)
            sums[h * KEYS + i] += own * at[i];
        }
      }
      vf found = sums_of(sums);
      for (; d < dim; d++)
        for (int i = 0; i < LANES; i++)
          found[i] += asked[i / KEYS * dim + d] * wide(key[i % KEYS][d]);
      // not the larger of 0: NaN stays NaN, and is chosen by nobody
      vf kept = chosen(found < same(0.0f), same(0.0f), found);
      total += *(const vf *)(row.shares + first * KEYS) * kept;
    }
    for (int64_t i = 0; i < held; i++) {
      float sum = total[i];
      for (int64_t h = 1; h < HEADS_AT_ONCE; h++)
        sum += total[h * KEYS + i];
      out[p + i] = sum;
    }
  }
}

// Numbers in the order of their bits; 0 of what is never chosen: NaN and -inf.
inline uint32_t rank_of(float value) {
  union {
    float number;
    uint32_t bits;
  } held = {value + 0.0f}; // -0 is 0
  if (value != value || held.bits == 0xff800000u)
    return 0;
  return held.bits & 0x80000000u ? ~held.bits : held.bits | 0x80000000u;
}

// The k best of `count` logits as positions ascending, then -1. The lowest wins ties. `ranks` and
// `held`: room for `count` numbers each.
inline void best_of(const float *logits, int64_t count, int64_t k, uint32_t *ranks, uint32_t *held,
                    int32_t *out) {
  int64_t never = 0; // chosen
  for (int64_t i = 0; i < count; i++) {
    ranks[i] = rank_of(logits[i]);
    never += !ranks[i];
  }
  uint32_t threshold = 0;
  int64_t room = k; // of those with the bits so far
  const uint32_t *from = ranks;
  for (int64_t shift = 24, left = count; shift >= 0; shift -= 8) {
    int64_t seen[256] = {};
    for (int64_t i = 0; i < left; i++)
      seen[from[i] >> shift & 255]++;
    if (shift == 24)
      seen[0] -= never;
    int64_t byte = 255;
    while (byte > 0 && seen[byte] < room)
      room -= seen[byte--];
    threshold |= (uint32_t)byte << shift;
    int64_t next = 0;
    for (int64_t i = 0; i < left; i++) {
      held[next] = from[i];
      next += from[i] && (from[i] >> shift & 255) == (uint32_t)byte;
    }
    from = held;
    left = next;
  }
  int64_t found = 0;
  for (int64_t i = 0; i < count && found < k; i++)
    if (ranks[i] && (ranks[i] > threshold || (ranks[i] == threshold && room-- > 0)))
      out[found++] = (int32_t)i;
  while (found < k)
    out[found++] = -1;
}

inline void every(int64_t count, int64_t k, int32_t *out) {
  for (int64_t i = 0; i < k; i++)
    out[i] = i < count ? (int32_t)i : -1;
}

template <typename T> void index_logits(void **params, Team *team) {
  const T *q = pointer<T>(params, 0), *cache = pointer<T>(params, 2);
  const float *weights = pointer<float>(params, 1);
  const int32_t *positions = pointer<int32_t>(params, 3), *starts = pointer<int32_t>(params, 4);
  const int32_t *table = pointer<int32_t>(params, 5);
  float *logits = pointer<float>(params, 6);
  int64_t before = integer(params, 8), end_row = before + integer(params, 9);
  int64_t rows = real_rows(params, 7, end_row) - before, heads = integer(params, 10);
  int64_t dim = integer(params, 11), k = integer(params, 12), requests = integer(params, 13);
  int64_t pages = integer(params, 14), page_tokens = integer(params, 15), most = integer(params, 16);
  int64_t many = integer(params, 17), q_row = integer(params, 18), q_head = integer(params, 19);
  int64_t w_row = integer(params, 20), num_pages = integer(params, 22);
  float scale = number(params, 21), *room = (float *)team->scratch;
  int64_t filled = parts(heads, HEADS_AT_ONCE) * HEADS_AT_ONCE;
  Asked asked = {filled, dim, room, room + filled * dim};
  int64_t spans = parts(most, SPAN), groups = parts(larger(rows, 0), many);
  int64_t last = -1;
  for (int64_t c; (c = take(team, groups * spans)) >= 0;) {
    int64_t first = c % groups * many, begin = c / groups * SPAN;
    for (int64_t row = first; row < smaller(first + many, rows); row++) {
      int64_t r = before + row, sees = positions[r];
      int64_t end = smaller(smaller(begin + SPAN, most), sees + 1);
      if (sees < k || begin >= end)
        continue;
      Cached<T> keys = {cache, table + request_of(starts, requests, r) * pages, page_tokens, dim,
                        num_pages};
      if (r != last)
        asked.take(q + r * q_row, q_head, heads, weights + r * w_row, scale);
      last = r;
      logits_of(asked, keys, begin, end, logits + row * most);
    }
  }
}

} // namespace

// Logits [T, S] of rows that see more than k positions, each up to its own: cut by positions and by
// rows, of which `many` read the same cached keys one after another. By the type of q and cache.
// Parameters: q, weights, cache, positions, q_starts, page_table, logits, num_rows, first row, T,
// heads, dim, k, B, pages, page_tokens, S, many, row and head of q, row of weights, scale. Of q and
// what goes with it the rows from the first one on are read, of logits the first T. The driver adds
// the cache's pages.
// Scratch: floats (heads + 3) (dim + 4).
KERNEL_OF(index_logits_f32, index_logits<float>)
KERNEL_OF(index_logits_bf16, index_logits<bf16>)

extern "C" {

// The k best of those logits: out [T, k], of the step's rows from the first one on.
// Parameters: logits, positions, out, num_rows, first row, T, k, S. Scratch: 2 S numbers.
void KERNEL(index_select)(void **params, Team *team) {
  const float *logits = pointer<float>(params, 0);
  const int32_t *positions = pointer<int32_t>(params, 1);
  int32_t *out = pointer<int32_t>(params, 2);
  int64_t before = integer(params, 4), all = integer(params, 5), k = integer(params, 6);
  int64_t rows = real_rows(params, 3, before + all), most = integer(params, 7);
  uint32_t *ranks = (uint32_t *)team->scratch;
  for (int64_t row; (row = take(team, all)) >= 0;) {
    int64_t r = before + row, seen = r < rows ? smaller(positions[r] + INT64_C(1), most) : 0;
    if (seen <= k)
      every(seen, k, out + r * k);
    else
      best_of(logits + row * most, seen, k, ranks, ranks + most, out + r * k);
  }
}
}
