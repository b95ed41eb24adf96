// The indexer's choice: logits of a row against cached keys, and the positions of the k best.

#include "cache.h"
#include "team.h"
#include "vector_math.h"

namespace {

const int64_t SPAN = 256; // positions of a chunk where a row's logits are cut

// Logits of positions begin .. end: scale * sum over heads of weight * relu(q . key).
inline void logits_of(const float *q, int64_t q_head, const float *weights, int64_t heads,
                      int64_t dim, const Cached &keys, int64_t begin, int64_t end, float scale, float *out) {
  for (int64_t p = begin; p < end; p += 4) {
    int64_t held = smaller(4, end - p);
    const float *key[4];
    for (int64_t i = 0; i < 4; i++)
      key[i] = keys[p + smaller(i, held - 1)];
    float total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int64_t h = 0; h < heads; h += 2) {
      const float *one = q + h * q_head;
      const float *two = q + smaller(h + 1, heads - 1) * q_head;
      v8 sums[2][4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++)
        sums[0][i] = sums[1][i] = same(0.0f);
      int64_t d = 0;
      for (; d + 8 <= dim; d += 8) {
        v8 a = *(const v8 *)(one + d), b = *(const v8 *)(two + d);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          v8 k = *(const v8 *)(key[i] + d);
          sums[0][i] += a * k;
          sums[1][i] += b * k;
        }
      }
      for (int i = 0; i < 4; i++) {
        float first = sum_of(sums[0][i]), second = sum_of(sums[1][i]);
        for (int64_t j = d; j < dim; j++) {
          first += one[j] * key[i][j];
          second += two[j] * key[i][j];
        }
        // not the larger of 0: NaN stays NaN, and is chosen by nobody
        total[i] += weights[h] * scale * (first < 0.0f ? 0.0f : first);
        if (h + 1 < heads)
          total[i] += weights[h + 1] * scale * (second < 0.0f ? 0.0f : second);
      }
    }
    for (int64_t i = 0; i < held; i++)
      out[p + i] = total[i];
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

// The k best of `count` logits as positions ascending, then -1. The lowest wins ties.
inline void best_of(const float *logits, int64_t count, int64_t k, int32_t *out) {
  uint32_t prefix = 0, mask = 0;
  int64_t room = k; // of those with the bits so far
  for (int shift = 24; shift >= 0; shift -= 8) {
    int64_t seen[256] = {};
    for (int64_t i = 0; i < count; i++) {
      uint32_t rank = rank_of(logits[i]);
      if ((rank & mask) == prefix && rank)
        seen[rank >> shift & 255]++;
    }
    int64_t byte = 255;
    while (byte > 0 && seen[byte] < room)
      room -= seen[byte--];
    prefix |= (uint32_t)byte << shift;
    mask |= 255u << shift;
  }
  int64_t found = 0;
  for (int64_t i = 0; i < count && found < k; i++) {
    uint32_t rank = rank_of(logits[i]);
    if (rank && (rank > prefix || (rank == prefix && room-- > 0)))
      out[found++] = (int32_t)i;
  }
  while (found < k)
    out[found++] = -1;
}

inline void every(int64_t count, int64_t k, int32_t *out) {
  for (int64_t i = 0; i < k; i++)
    out[i] = i < count ? (int32_t)i : -1;
}

} // namespace

extern "C" {

// Logits [T, S] of rows that see more than k positions, for few rows: cut by positions.
// Parameters: q, weights, cache, positions, q_starts, page_table, logits, num_rows, T, heads, dim,
// k, B, pages, page_tokens, S, row and head of q, row of weights, scale.
void index_logits_f32(void **params, Team *team) {
  const float *q = pointer<float>(params, 0), *weights = pointer<float>(params, 1);
  const float *cache = pointer<float>(params, 2);
  const int32_t *positions = pointer<int32_t>(params, 3), *starts = pointer<int32_t>(params, 4);
  const int32_t *table = pointer<int32_t>(params, 5);
  float *logits = pointer<float>(params, 6);
  int64_t rows = real_rows(params, 7, integer(params, 8)), heads = integer(params, 9);
  int64_t dim = integer(params, 10), k = integer(params, 11), requests = integer(params, 12);
  int64_t pages = integer(params, 13), page_tokens = integer(params, 14), most = integer(params, 15);
  int64_t q_row = integer(params, 16), q_head = integer(params, 17), w_row = integer(params, 18);
  float scale = number(params, 19);
  int64_t spans = parts(most, SPAN);
  for (int64_t c; (c = take(team)) < rows * spans;) {
    int64_t r = c / spans, begin = c % spans * SPAN, end = smaller(begin + SPAN, positions[r] + 1);
    if (positions[r] < k || begin >= end)
      continue;
    Cached keys = {cache, table + request_of(starts, requests, r) * pages, page_tokens, dim};
    logits_of(q + r * q_row, q_head, weights + r * w_row, heads, dim, keys, begin, end, scale,
              logits + r * most);
  }
}

// The k best of those logits: out [T, k].
// Parameters: logits, positions, out, num_rows, T, k, S.
void index_select(void **params, Team *team) {
  const float *logits = pointer<float>(params, 0);
  const int32_t *positions = pointer<int32_t>(params, 1);
  int32_t *out = pointer<int32_t>(params, 2);
  int64_t all = integer(params, 4), rows = real_rows(params, 3, all), k = integer(params, 5);
  int64_t most = integer(params, 6);
  for (int64_t r; (r = take(team)) < all;) {
    int64_t seen = r < rows ? positions[r] + 1 : 0;
    if (seen <= k)
      every(seen, k, out + r * k);
    else
      best_of(logits + r * most, seen, k, out + r * k);
  }
}

// Both for many rows, each by one thread: out [T, k].
// Parameters as of index_logits_f32, with out in place of logits. Scratch: S floats.
void index_topk_f32(void **params, Team *team) {
  const float *q = pointer<float>(params, 0), *weights = pointer<float>(params, 1);
  const float *cache = pointer<float>(params, 2);
  const int32_t *positions = pointer<int32_t>(params, 3), *starts = pointer<int32_t>(params, 4);
  const int32_t *table = pointer<int32_t>(params, 5);
  int32_t *out = pointer<int32_t>(params, 6);
  int64_t all = integer(params, 8), rows = real_rows(params, 7, all), heads = integer(params, 9);
  int64_t dim = integer(params, 10), k = integer(params, 11), requests = integer(params, 12);
  int64_t pages = integer(params, 13), page_tokens = integer(params, 14);
  int64_t q_row = integer(params, 16), q_head = integer(params, 17), w_row = integer(params, 18);
  float scale = number(params, 19), *logits = (float *)team->scratch;
  for (int64_t r; (r = take(team)) < all;) {
    int64_t seen = r < rows ? positions[r] + 1 : 0;
    if (seen <= k) {
      every(seen, k, out + r * k);
      continue;
    }
    Cached keys = {cache, table + request_of(starts, requests, r) * pages, page_tokens, dim};
    logits_of(q + r * q_row, q_head, weights + r * w_row, heads, dim, keys, 0, seen, scale, logits);
    best_of(logits, seen, k, out + r * k);
  }
}
}
