// Latent attention over the paged cache, absorbed: each row over its own positions. Queries as the
// cached rows see them, scores and contexts are f32.

#include "layouts.h"
#include "lines.h"
#include "multiply.h"
#include "team.h"

namespace {

const int64_t HEADS = 4; // of a chunk: they share what is read of the cache

// Scores of H heads at LANES / H positions, those of one head together.
template <int H, typename L>
inline void scores_at(L form, const typename L::Place *const *cached, int64_t held, const float *q,
                      int64_t width, float *out, int64_t out_head) {
  const int P = LANES / H;
  const typename L::Place *at[P];
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
      asked[h] = load(q + h * width + i);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) {
      vf key = form.at(at[p], i);
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
        sum += form.one(at[p], j) * q[h * width + j];
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
template <int H, typename L>
inline void contexts(L form, const typename L::Place *const *cached, const float *shares,
                     int64_t share_head, int64_t count, int64_t latent, float *context) {
  int64_t c = 0;
  for (; c + 2 * LANES <= latent; c += 2 * LANES) {
    vf sums[H][2];
#pragma GCC unroll 4
    for (int h = 0; h < H; h++)
      sums[h][0] = sums[h][1] = same(0.0f);
    for (int64_t i = 0; i < count; i++) {
      vf low = form.at(cached[i], c), high = form.at(cached[i], c + LANES);
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
        sum += shares[h * share_head + i] * form.one(cached[i], c);
      context[h * latent + c] = sum;
    }
}

// out[r][n] = x[r] . w[n], for R rows and N rows of w. A sum has one order, whatever stands beside
// it.
template <int R, int N, typename W, typename T>
inline __attribute__((always_inline)) void dot_block(const float *x, int64_t x_row, Lines<W> w,
                                                     T *out, int64_t out_row) {
  vf sums[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int n = 0; n < N; n++)
      sums[r][n] = same(0.0f);
  int64_t i = 0;
  for (; i + LANES <= w.count; i += LANES) {
    vf row[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; n++)
      row[n] = w.at(n, i);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      vf held = load(x + r * x_row + i);
#pragma GCC unroll 8
      for (int n = 0; n < N; n++)
        sums[r][n] += held * row[n];
    }
  }
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) {
      float sum = sum_of(sums[r][n]);
      for (int64_t j = i; j < w.count; j++)
        sum += x[r * x_row + j] * w.one(n, j);
      if constexpr (requires { w.of_sums(0); })
        sum *= w.of_sums(n);
      store(out + r * out_row + n, sum);
    }
}

template <int N, typename W, typename T>
inline void dot_rows(const float *x, int64_t x_row, int64_t rows, Lines<W> w, T *out,
                     int64_t out_row) {
  int64_t r = 0;
  for (; r + 3 <= rows; r += 3)
    dot_block<3, N>(x + r * x_row, x_row, w, out + r * out_row, out_row);
  for (; r < rows; r++)
    dot_block<1, N>(x + r * x_row, x_row, w, out + r * out_row, out_row);
}

// The same for any number of rows, and up to four of w.
template <typename W, typename T>
inline void dots(const float *x, int64_t x_row, int64_t rows, Lines<W> w, int64_t columns, T *out,
                 int64_t out_row) {
  switch (columns) {
  case 1: dot_rows<1>(x, x_row, rows, w, out, out_row); break;
  case 2: dot_rows<2>(x, x_row, rows, w, out, out_row); break;
  case 3: dot_rows<3>(x, x_row, rows, w, out, out_row); break;
  default: dot_rows<4>(x, x_row, rows, w, out, out_row); break;
  }
}

template <int H, typename L>
void heads(L form, const typename L::Place *const *cached, int64_t count, const float *q,
           int64_t width, float *scores, int64_t most, int64_t latent, float *context) {
  for (int64_t i = 0; i < count; i += LANES / H)
    scores_at<H>(form, cached + i, smaller(LANES / H, count - i), q, width, scores + i, most);
  for (int h = 0; h < H; h++)
    softmax(scores + h * most, count);
  contexts<H>(form, cached, scores, most, count, latent, context);
}

// Any number of heads up to four, in ones, twos and fours: what a head gives depends on no other.
template <typename L>
inline void all_heads(L form, int64_t held, const typename L::Place *const *cached, int64_t count,
                      const float *q, int64_t width, float *scores, int64_t most, int64_t latent,
                      float *context) {
  for (int64_t h = 0; h < held;) {
    const float *own_q = q + h * width;
    float *own = context + h * latent;
    if (held - h >= 4) {
      heads<4>(form, cached, count, own_q, width, scores, most, latent, own);
      h += 4;
    } else if (held - h >= 2) {
      heads<2>(form, cached, count, own_q, width, scores, most, latent, own);
      h += 2;
    } else {
      heads<1>(form, cached, count, own_q, width, scores, most, latent, own);
      h += 1;
    }
  }
}

// Int8 whose scales are not of a product's columns.
struct code : s8 {};

// Rows whose numbers are multiplied by the scales of those of a weight that they meet.
template <typename T> struct Weighted {
  Rows<T> values;
  const float *scales;
  Weighted behind(int64_t r) const { return {values.behind(r), scales}; }
};
template <typename T> inline float one(Rows<T> x, int64_t r, int64_t i) { return wide(x[r][i]); }
template <typename T> inline float one(Weighted<T> x, int64_t r, int64_t i) {
  return one(x.values, r, i) * x.scales[i];
}

template <typename T>
Rows<float> as_f32(Weighted<T> x, int64_t rows, int64_t k, int64_t count, float *room) {
  for (int64_t r = 0; r < rows; r++) {
    float *to = room + r * K_BLOCK;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
      store(to + i, load(x.values[r] + k + i) * load(x.scales + k + i));
    for (; i < count; i++)
      to[i] = one(x, r, k + i);
  }
  return {room, K_BLOCK};
}

// Rows of kv_b [H, nope + value, latent] as tiles of its columns: parameters `index` and on.
template <typename W> inline auto keys_of(void **params, int index, int64_t latent) {
  return Tiles<W>{pointer<W>(params, index), TILE, latent};
}
template <> inline auto keys_of<f8>(void **params, int index, int64_t latent) {
  const float *scales = pointer<float>(params, index + 1);
  return Tiles<f8>{pointer<f8>(params, index), TILE, latent, scales, 1, parts(latent, SCALED), 0, 0};
}
template <> inline auto keys_of<s8>(void **params, int index, int64_t latent) {
  return Tiles<code>{pointer<code>(params, index), TILE, latent};
}

// Queries as they meet the rows of kv_b from one on.
template <typename W, typename T> inline auto asked_of(Rows<T> q, void **params, int index, int64_t n) {
  if constexpr (__is_same(W, s8))
    return Weighted<T>{q, pointer<float>(params, index + 1) + n};
  else
    return q;
}

template <typename T, typename W> void absorb(void **params, Team *team) {
  const T *q_nope = pointer<T>(params, 0), *q_pe = pointer<T>(params, 1);
  float *q = pointer<float>(params, 4);
  int64_t rows = real_rows(params, 5, integer(params, 6)), heads = integer(params, 7);
  int64_t nope = integer(params, 8), rope = integer(params, 9), value = integer(params, 10);
  int64_t latent = integer(params, 11), width = latent + rope;
  int64_t nope_row = integer(params, 12), nope_head = integer(params, 13);
  int64_t pe_row = integer(params, 14), pe_head = integer(params, 15);
  float scale = number(params, 16);
  auto kv_b = keys_of<W>(params, 2, latent);
  int64_t groups = parts(width, WIDE), blocks = parts(rows, ROW_BLOCK);
  for (int64_t c; (c = take(team, heads * groups * blocks)) >= 0;) {
    int64_t row = c / (heads * groups) * ROW_BLOCK, held = smaller(ROW_BLOCK, rows - row);
    int64_t h = c / groups % heads, first = c % groups * WIDE;
    int64_t end = smaller(first + WIDE, latent), whole = first + larger(end - first, 0) / TILE * TILE;
    int64_t own_keys = h * (nope + value);
    auto keys = kv_b.from(0, own_keys);
    auto asked = asked_of<W>(Rows<T>{q_nope + row * nope_row + h * nope_head, nope_row}, params, 2,
                             own_keys);
    float *to = q + (row * heads + h) * width;
    multiply(asked, held, keys.from(first / TILE, 0), nope,
             Places<float>{to + first, heads * width, nullptr}, (whole - first) / TILE,
             (Room *)team->scratch);
    for (int64_t r = 0; r < held; r++) {
      float *own = to + r * heads * width;
      for (int64_t n = whole; n < end; n++) {
        own[n] = 0.0f;
        for (int64_t i = 0; i < nope; i++)
          own[n] += one(asked, r, i) * keys.one(i, n);
      }
      for (int64_t n = first; n < end; n++)
        own[n] *= scale;
      for (int64_t n = larger(first, latent); n < smaller(first + WIDE, width); n++)
        own[n] = wide(q_pe[(row + r) * pe_row + h * pe_head + n - latent]) * scale;
    }
  }
}

template <typename L> void attend(void **params, Team *team) {
  typedef typename L::Place T;
  const float *q = pointer<float>(params, 0);
  const T *cache = pointer<T>(params, 1);
  const int32_t *selection = pointer<int32_t>(params, 2);
  const int32_t *positions = pointer<int32_t>(params, 3), *starts = pointer<int32_t>(params, 4);
  const int32_t *table = pointer<int32_t>(params, 5);
  float *context = pointer<float>(params, 6);
  int64_t rows = real_rows(params, 7, integer(params, 8)), num_heads = integer(params, 9);
  int64_t latent = integer(params, 11), width = latent + integer(params, 10);
  int64_t most = integer(params, 12), requests = integer(params, 13), pages = integer(params, 14);
  int64_t page_tokens = integer(params, 15), groups = parts(num_heads, HEADS);
  int64_t num_pages = integer(params, 16), seen = pages * page_tokens;
  L form = {latent, width};
  float *scores = (float *)team->scratch;
  const T **cached = (const T **)(scores + HEADS * most);
  for (int64_t c; (c = take(team, rows * groups)) >= 0;) {
    int64_t r = c / groups, first = c % groups * HEADS, held = smaller(HEADS, num_heads - first);
    const float *own_q = q + (r * num_heads + first) * width;
    float *to = context + (r * num_heads + first) * latent;
    Cached<T> own = {cache, table + request_of(starts, requests, r) * pages, page_tokens,
                     form.places(), num_pages};
    int64_t count = 0;
    if (selection)
      for (; count < most; count++) {
        int64_t position = selection[r * most + count];
        if (!is_of(position, seen))
          break;
        cached[count] = own[position];
      }
    else
      for (; count < most && count <= positions[r]; count++)
        cached[count] = own[count];
    if (!count) {
      for (int64_t i = 0; i < held * latent; i++)
        to[i] = 0.0f;
      continue;
    }
    all_heads(form, held, cached, count, own_q, width, scores, most, latent, to);
  }
}

template <typename W, typename T> void write_heads(void **params, Team *team) {
  const float *context = pointer<float>(params, 0);
  T *out = pointer<T>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5)), heads = integer(params, 6);
  int64_t nope = integer(params, 7), value = integer(params, 8), latent = integer(params, 9);
  int64_t out_row = integer(params, 10);
  Lines<W> kv_b = lines_of<W>(params, 1, latent);
  int64_t groups = parts(value, WIDE), blocks = parts(rows, ROW_BLOCK);
  for (int64_t c; (c = take(team, heads * groups * blocks)) >= 0;) {
    int64_t row = c / (heads * groups) * ROW_BLOCK, held = smaller(ROW_BLOCK, rows - row);
    int64_t h = c / groups % heads, first = c % groups * WIDE, end = smaller(first + WIDE, value);
    Lines<W> values = kv_b.from(h * (nope + value) + nope);
    const float *from = context + (row * heads + h) * latent;
    T *to = out + row * out_row + h * value;
    for (int64_t n = first; n < end; n += 4)
      dots(from, heads * latent, held, values.from(n), smaller(4, end - n), to + n, out_row);
  }
}

} // namespace

// q [T, H, latent + rope] = q_nope . keys, then q_pe, all times the scale; kv_b [H, nope + value,
// latent]: a head's first rows are its keys. By the types of q_nope and kv_b.
// Parameters: q_nope, q_pe, kv_b, its scales or null, q, num_rows, T, H, nope, rope, value, latent,
// row and head of q_nope, of q_pe, scale. Scratch: a Room.
KERNEL_OF(absorb_f32, absorb<float, float>)
KERNEL_OF(absorb_bf16, absorb<bf16, bf16>)
KERNEL_OF(absorb_bf16_f8, absorb<bf16, f8>)
KERNEL_OF(absorb_f32_f8, absorb<float, f8>)
KERNEL_OF(absorb_bf16_s8, absorb<bf16, s8>)
KERNEL_OF(absorb_f32_s8, absorb<float, s8>)

// context [T, H, latent]: attention of q over each row's selected positions [T, K], ascending and
// then -1 (or one that the page table does not have), or, without a selection, over the first K that
// it sees; zeros where there are none. By the cache's layout.
// Parameters: q, cache, selection or null, positions, q_starts, page_table, context, num_rows, T, H,
// rope, latent, K, B, pages, page_tokens; the driver adds the cache's pages. Scratch: 4 K floats,
// then K addresses.
KERNEL_OF(attend_f32, attend<Plain<float>>)
KERNEL_OF(attend_bf16, attend<Plain<bf16>>)
KERNEL_OF(attend_fp8_576, attend<Plain<f8>>)
KERNEL_OF(attend_fp8_656, attend<ScaledLatents>)

// out [T, H, value] = context . values: the last rows of each head of kv_b. By the types of these.
// Parameters: context, kv_b, its scales or null, out, num_rows, T, H, nope, value, latent, row of
// out.
KERNEL_OF(write_heads_f32, write_heads<float, float>)
KERNEL_OF(write_heads_bf16, write_heads<bf16, bf16>)
KERNEL_OF(write_heads_f8_bf16, write_heads<f8, bf16>)
KERNEL_OF(write_heads_f8_f32, write_heads<f8, float>)
KERNEL_OF(write_heads_s8_bf16, write_heads<s8, bf16>)
KERNEL_OF(write_heads_s8_f32, write_heads<s8, float>)
