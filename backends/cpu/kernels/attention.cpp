// Latent attention over the paged cache, absorbed, in f32: each row over its own positions.

#include "cache.h"
#include "products.cpp"
#include "team.h"

namespace {

const int64_t HEADS = 4; // of a chunk: they share what is read of the cache

// Scores of H heads at LANES / H positions, those of one head together.
template <int H>
inline void scores_at(const float *const *cached, int64_t held, const float *q, int64_t width,
                      float *out, int64_t out_head) {
  const int P = LANES / H;
  const float *at[P];
#pragma GCC unroll 16
  for (int p = 0; p < P; p++)
    at[p] = cached[smaller(p, held - 1)];
  vf sums[LANES];
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++)
    sums[i] = same(0.0f);
  int64_t i = 0;
  for (; i + LANES <= width; i += LANES) {
    vf asked[H];
#pragma GCC unroll 16
    for (int h = 0; h < H; h++)
      asked[h] = *(const vf *)(q + h * width + i);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) {
      vf key = *(const vf *)(at[p] + i);
#pragma GCC unroll 16
      for (int h = 0; h < H; h++)
        sums[h * P + p] += key * asked[h];
    }
  }
  vf found = sums_of(sums);
  for (int h = 0; h < H; h++)
    for (int64_t p = 0; p < held; p++) {
      float sum = found[h * P + p];
      for (int64_t j = i; j < width; j++)
        sum += at[p][j] * q[h * width + j];
      out[h * out_head + p] = sum;
    }
}

inline void softmax(float *scores, int64_t count) {
  float most = scores[0];
  for (int64_t i = 1; i < count; i++)
    most = scores[i] > most ? scores[i] : most;
  vf sums = same(0.0f);
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vf made = exp_of(*(vf *)(scores + i) - same(most));
    *(vf *)(scores + i) = made;
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

// context [H, latent] = shares [H, count] . cached rows, two vectors of columns at a time.
template <int H>
inline void contexts(const float *const *cached, const float *shares, int64_t share_head,
                     int64_t count, int64_t latent, float *context) {
  int64_t c = 0;
  for (; c + 2 * LANES <= latent; c += 2 * LANES) {
    vf sums[H][2];
#pragma GCC unroll 4
    for (int h = 0; h < H; h++)
      sums[h][0] = sums[h][1] = same(0.0f);
    for (int64_t i = 0; i < count; i++) {
      vf low = *(const vf *)(cached[i] + c), high = *(const vf *)(cached[i] + c + LANES);
#pragma GCC unroll 4
      for (int h = 0; h < H; h++) {
        vf share = same(shares[h * share_head + i]);
        sums[h][0] += share * low;
        sums[h][1] += share * high;
      }
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      *(vf *)(context + h * latent + c) = sums[h][0];
      *(vf *)(context + h * latent + c + LANES) = sums[h][1];
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

// out[r][n] = x[r] . w[n] over `count`, for R rows and N rows of w. A sum has one order, whatever
// stands beside it.
template <int R, int N>
inline __attribute__((always_inline)) void dot_block(const float *x, int64_t x_row, const float *w,
                                                     int64_t count, float *out, int64_t out_row) {
  vf sums[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int n = 0; n < N; n++)
      sums[r][n] = same(0.0f);
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vf row[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; n++)
      row[n] = *(const vf *)(w + n * count + i);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      vf held = *(const vf *)(x + r * x_row + i);
#pragma GCC unroll 8
      for (int n = 0; n < N; n++)
        sums[r][n] += held * row[n];
    }
  }
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) {
      float sum = sum_of(sums[r][n]);
      for (int64_t j = i; j < count; j++)
        sum += x[r * x_row + j] * w[n * count + j];
      out[r * out_row + n] = sum;
    }
}

template <int N>
inline void dot_rows(const float *x, int64_t x_row, int64_t rows, const float *w, int64_t count,
                     float *out, int64_t out_row) {
  int64_t r = 0;
  for (; r + 3 <= rows; r += 3)
    dot_block<3, N>(x + r * x_row, x_row, w, count, out + r * out_row, out_row);
  for (; r < rows; r++)
    dot_block<1, N>(x + r * x_row, x_row, w, count, out + r * out_row, out_row);
}

// The same for any number of rows, and up to four of w, which lie one behind the other.
inline void dots(const float *x, int64_t x_row, int64_t rows, const float *w, int64_t count,
                 int64_t columns, float *out, int64_t out_row) {
  switch (columns) {
  case 1: dot_rows<1>(x, x_row, rows, w, count, out, out_row); break;
  case 2: dot_rows<2>(x, x_row, rows, w, count, out, out_row); break;
  case 3: dot_rows<3>(x, x_row, rows, w, count, out, out_row); break;
  default: dot_rows<4>(x, x_row, rows, w, count, out, out_row); break;
  }
}

template <int H>
void heads(const float *const *cached, int64_t count, const float *q, int64_t width, float *scores,
           int64_t most, int64_t latent, float *context) {
  for (int64_t i = 0; i < count; i += LANES / H)
    scores_at<H>(cached + i, smaller(LANES / H, count - i), q, width, scores + i, most);
  for (int h = 0; h < H; h++)
    softmax(scores + h * most, count);
  contexts<H>(cached, scores, most, count, latent, context);
}

// Any number of heads up to four, in ones, twos and fours: what a head gives depends on no other.
inline void all_heads(int64_t held, const float *const *cached, int64_t count, const float *q,
                      int64_t width, float *scores, int64_t most, int64_t latent, float *context) {
  for (int64_t h = 0; h < held;) {
    const float *own_q = q + h * width;
    float *own = context + h * latent;
    if (held - h >= 4) {
      heads<4>(cached, count, own_q, width, scores, most, latent, own);
      h += 4;
    } else if (held - h >= 2) {
      heads<2>(cached, count, own_q, width, scores, most, latent, own);
      h += 2;
    } else {
      heads<1>(cached, count, own_q, width, scores, most, latent, own);
      h += 1;
    }
  }
}

} // namespace

extern "C" {

// q [T, H, latent + rope] = q_nope . keys, then q_pe, all times the scale; kv_b [H, nope + value,
// latent]: a head's first rows are its keys.
// Parameters: q_nope, q_pe, kv_b, q, num_rows, T, H, nope, rope, value, latent, row and head of
// q_nope, of q_pe, scale.
void KERNEL(absorb_f32)(void **params, Team *team) {
  const float *q_nope = pointer<float>(params, 0), *q_pe = pointer<float>(params, 1);
  const float *kv_b = pointer<float>(params, 2);
  float *q = pointer<float>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5)), heads = integer(params, 6);
  int64_t nope = integer(params, 7), rope = integer(params, 8), value = integer(params, 9);
  int64_t latent = integer(params, 10), width = latent + rope, wide = GROUP * TILE;
  int64_t nope_row = integer(params, 11), nope_head = integer(params, 12);
  int64_t pe_row = integer(params, 13), pe_head = integer(params, 14);
  float scale = number(params, 15);
  int64_t groups = parts(width, wide), blocks = parts(rows, ROW_BLOCK);
  for (int64_t c; (c = take(team, heads * groups * blocks)) >= 0;) {
    int64_t row = c / (heads * groups) * ROW_BLOCK, held = smaller(ROW_BLOCK, rows - row);
    int64_t h = c / groups % heads, first = c % groups * wide;
    int64_t end = smaller(first + wide, latent), whole = first + larger(end - first, 0) / TILE * TILE;
    const float *from = q_nope + row * nope_row + h * nope_head;
    const float *keys = kv_b + h * (nope + value) * latent;
    float *to = q + (row * heads + h) * width;
    multiply(Rows{from, nope_row}, held, keys + first, TILE, latent, nope,
             Places{to + first, heads * width, nullptr}, (whole - first) / TILE);
    for (int64_t r = 0; r < held; r++) {
      float *own = to + r * heads * width;
      for (int64_t n = whole; n < end; n++) {
        own[n] = 0.0f;
        for (int64_t i = 0; i < nope; i++)
          own[n] += from[r * nope_row + i] * keys[i * latent + n];
      }
      for (int64_t n = first; n < end; n++)
        own[n] *= scale;
      for (int64_t n = larger(first, latent); n < smaller(first + wide, width); n++)
        own[n] = q_pe[(row + r) * pe_row + h * pe_head + n - latent] * scale;
    }
  }
}

// context [T, H, latent]: attention of q over each row's selected positions [T, K], ascending and
// then -1, or, without a selection, over the first K that it sees; zeros where there are none.
// Parameters: q, cache, selection or null, positions, q_starts, page_table, context, num_rows, T, H,
// rope, latent, K, B, pages, page_tokens. Scratch: 4 K floats, then K addresses.
void KERNEL(attend_f32)(void **params, Team *team) {
  const float *q = pointer<float>(params, 0), *cache = pointer<float>(params, 1);
  const int32_t *selection = pointer<int32_t>(params, 2);
  const int32_t *positions = pointer<int32_t>(params, 3), *starts = pointer<int32_t>(params, 4);
  const int32_t *table = pointer<int32_t>(params, 5);
  float *context = pointer<float>(params, 6);
  int64_t rows = real_rows(params, 7, integer(params, 8)), num_heads = integer(params, 9);
  int64_t latent = integer(params, 11), width = latent + integer(params, 10);
  int64_t most = integer(params, 12), requests = integer(params, 13), pages = integer(params, 14);
  int64_t page_tokens = integer(params, 15), groups = parts(num_heads, HEADS);
  float *scores = (float *)team->scratch;
  const float **cached = (const float **)(scores + HEADS * most);
  for (int64_t c; (c = take(team, rows * groups)) >= 0;) {
    int64_t r = c / groups, first = c % groups * HEADS, held = smaller(HEADS, num_heads - first);
    const float *own_q = q + (r * num_heads + first) * width;
    float *to = context + (r * num_heads + first) * latent;
    Cached own = {cache, table + request_of(starts, requests, r) * pages, page_tokens, width};
    int64_t count = 0;
    if (selection)
      for (; count < most && selection[r * most + count] >= 0; count++)
        cached[count] = own[selection[r * most + count]];
    else
      for (; count < most && count <= positions[r]; count++)
        cached[count] = own[count];
    if (!count) {
      for (int64_t i = 0; i < held * latent; i++)
        to[i] = 0.0f;
      continue;
    }
    all_heads(held, cached, count, own_q, width, scores, most, latent, to);
  }
}

// out [T, H, value] = context . values: the last rows of each head of kv_b.
// Parameters: context, kv_b, out, num_rows, T, H, nope, value, latent, row of out.
void KERNEL(write_heads_f32)(void **params, Team *team) {
  const float *context = pointer<float>(params, 0), *kv_b = pointer<float>(params, 1);
  float *out = pointer<float>(params, 2);
  int64_t rows = real_rows(params, 3, integer(params, 4)), heads = integer(params, 5);
  int64_t nope = integer(params, 6), value = integer(params, 7), latent = integer(params, 8);
  int64_t out_row = integer(params, 9), wide = GROUP * TILE;
  int64_t groups = parts(value, wide), blocks = parts(rows, ROW_BLOCK);
  for (int64_t c; (c = take(team, heads * groups * blocks)) >= 0;) {
    int64_t row = c / (heads * groups) * ROW_BLOCK, held = smaller(ROW_BLOCK, rows - row);
    int64_t h = c / groups % heads, first = c % groups * wide, end = smaller(first + wide, value);
    const float *values = kv_b + (h * (nope + value) + nope) * latent;
    const float *from = context + (row * heads + h) * latent;
    float *to = out + row * out_row + h * value;
    for (int64_t n = first; n < end; n += 4)
      dots(from, heads * latent, held, values + n * latent, latent, smaller(4, end - n), to + n,
           out_row);
  }
}
}
