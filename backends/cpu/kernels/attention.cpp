// Latent attention over the paged cache, absorbed, in f32: each row over its own positions.

#include "cache.h"
#include "products.cpp"
#include "team.h"

namespace {

const int64_t HEADS = 4; // of a chunk: they share what is read of the cache

// Scores of up to 4 heads at one position.
template <int H>
inline void scores_at(const float *cached, const float *q, int64_t width, float *out,
                      int64_t out_head) {
  v8 sums[H][2];
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
    sums[h][0] = sums[h][1] = same(0.0f);
  int64_t i = 0;
  for (; i + 16 <= width; i += 16) {
    v8 low = *(const v8 *)(cached + i), high = *(const v8 *)(cached + i + 8);
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      sums[h][0] += low * *(const v8 *)(q + h * width + i);
      sums[h][1] += high * *(const v8 *)(q + h * width + i + 8);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; h++) {
    float sum = sum_of(sums[h][0] + sums[h][1]);
    for (int64_t j = i; j < width; j++)
      sum += cached[j] * q[h * width + j];
    out[h * out_head] = sum;
  }
}

inline void softmax(float *scores, int64_t count) {
  float most = scores[0];
  for (int64_t i = 1; i < count; i++)
    most = scores[i] > most ? scores[i] : most;
  v8 sums = same(0.0f);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    v8 made = exp_of(*(v8 *)(scores + i) - same(most));
    *(v8 *)(scores + i) = made;
    sums += made;
  }
  float sum = sum_of(sums);
  for (; i < count; i++) {
    scores[i] = exp_one(scores[i] - most);
    sum += scores[i];
  }
  for (i = 0; i < count; i++)
    scores[i] /= sum;
}

// context [H, latent] = shares [H, count] . cached rows, 16 columns at a time.
template <int H>
inline void contexts(const float *const *cached, const float *shares, int64_t share_head,
                     int64_t count, int64_t latent, float *context) {
  int64_t c = 0;
  for (; c + 16 <= latent; c += 16) {
    v8 sums[H][2];
#pragma GCC unroll 4
    for (int h = 0; h < H; h++)
      sums[h][0] = sums[h][1] = same(0.0f);
    for (int64_t i = 0; i < count; i++) {
      v8 low = *(const v8 *)(cached[i] + c), high = *(const v8 *)(cached[i] + c + 8);
#pragma GCC unroll 4
      for (int h = 0; h < H; h++) {
        v8 share = same(shares[h * share_head + i]);
        sums[h][0] += share * low;
        sums[h][1] += share * high;
      }
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      *(v8 *)(context + h * latent + c) = sums[h][0];
      *(v8 *)(context + h * latent + c + 8) = sums[h][1];
    }
  }
  for (; c < latent; c++)
    for (int h = 0; h < H; h++) {
      float sum = 0.0f;
      for (int64_t i = 0; i < count; i++)
        sum += shares[h * share_head + i] * cached[i][c];
      context[h * latent + c] = sum;
    }
}

struct Sizes {
  int64_t nope, rope, value, latent;
};

// q_nope . keys [nope, latent], then q_pe, all times the scale.
inline void absorb(const float *q_nope, const float *q_pe, const float *keys, const Sizes &s,
                   float scale, float *out) {
  int64_t whole = s.latent / 16 * 16;
  multiply(Rows{q_nope, 0}, 1, keys, 16, s.latent, s.nope, Places{out, 0, nullptr}, whole / 16);
  for (int64_t c = whole; c < s.latent; c++) {
    out[c] = 0.0f;
    for (int64_t i = 0; i < s.nope; i++)
      out[c] += q_nope[i] * keys[i * s.latent + c];
  }
  for (int64_t c = 0; c < s.latent; c++)
    out[c] *= scale;
  for (int64_t i = 0; i < s.rope; i++)
    out[s.latent + i] = q_pe[i] * scale;
}

inline void write_head(const float *context, const float *values, const Sizes &s, float *out) {
  for (int64_t d = 0; d < s.value; d++)
    scores_at<1>(values + d * s.latent, context, s.latent, out + d, 0);
}

template <int H>
void heads(const float *const *cached, int64_t count, const float *q, int64_t width, float *scores,
           int64_t most, int64_t latent, float *context) {
  for (int64_t i = 0; i < count; i++)
    scores_at<H>(cached[i], q, width, scores + i, most);
  for (int h = 0; h < H; h++)
    softmax(scores + h * most, count);
  contexts<H>(cached, scores, most, count, latent, context);
}

} // namespace

extern "C" {

// Attention over each row's selected positions [T, K], ascending and then -1, or, without a
// selection, over the first K that it sees. kv_b [H, nope + value, latent]; out [T, H, value].
// Parameters: q_nope, q_pe, kv_b, cache, selection or null, positions, q_starts, page_table, out,
// num_rows, T, H, nope, rope, value, latent, K, B, pages, page_tokens, row and head of q_nope, of
// q_pe, row of out, scale.
// Scratch: floats 4 (2 latent + rope + K), then K addresses.
void attend_f32(void **params, Team *team) {
  const float *q_nope = pointer<float>(params, 0), *q_pe = pointer<float>(params, 1);
  const float *kv_b = pointer<float>(params, 2), *cache = pointer<float>(params, 3);
  const int32_t *selection = pointer<int32_t>(params, 4);
  const int32_t *positions = pointer<int32_t>(params, 5), *starts = pointer<int32_t>(params, 6);
  const int32_t *table = pointer<int32_t>(params, 7);
  float *out = pointer<float>(params, 8);
  int64_t rows = real_rows(params, 9, integer(params, 10)), num_heads = integer(params, 11);
  Sizes s = {integer(params, 12), integer(params, 13), integer(params, 14), integer(params, 15)};
  int64_t most = integer(params, 16), requests = integer(params, 17), pages = integer(params, 18);
  int64_t page_tokens = integer(params, 19);
  int64_t nope_row = integer(params, 20), nope_head = integer(params, 21);
  int64_t pe_row = integer(params, 22), pe_head = integer(params, 23), out_row = integer(params, 24);
  float scale = number(params, 25);
  int64_t width = s.latent + s.rope, groups = parts(num_heads, HEADS);
  float *q = (float *)team->scratch, *context = q + HEADS * width;
  float *scores = context + HEADS * s.latent;
  const float **cached = (const float **)(scores + HEADS * most);
  for (int64_t c; (c = take(team)) < rows * groups;) {
    int64_t r = c / groups, first = c % groups * HEADS, held = smaller(HEADS, num_heads - first);
    float *to = out + r * out_row + first * s.value;
    Cached own = {cache, table + request_of(starts, requests, r) * pages, page_tokens, width};
    int64_t count = 0;
    if (selection)
      for (; count < most && selection[r * most + count] >= 0; count++)
        cached[count] = own[selection[r * most + count]];
    else
      for (; count < most && count <= positions[r]; count++)
        cached[count] = own[count];
    if (!count) {
      for (int64_t i = 0; i < held * s.value; i++)
        to[i] = 0.0f;
      continue;
    }
    const float *weights = kv_b + first * (s.nope + s.value) * s.latent;
    int64_t weights_head = (s.nope + s.value) * s.latent;
    for (int64_t h = 0; h < held; h++)
      absorb(q_nope + r * nope_row + (first + h) * nope_head, q_pe + r * pe_row + (first + h) * pe_head,
             weights + h * weights_head, s, scale, q + h * width);
    switch (held) {
    case 1: heads<1>(cached, count, q, width, scores, most, s.latent, context); break;
    case 2: heads<2>(cached, count, q, width, scores, most, s.latent, context); break;
    case 3: heads<3>(cached, count, q, width, scores, most, s.latent, context); break;
    default: heads<4>(cached, count, q, width, scores, most, s.latent, context); break;
    }
    for (int64_t h = 0; h < held; h++)
      write_head(context + h * s.latent, weights + h * weights_head + s.nope * s.latent, s,
                 to + h * s.value);
  }
}
}
