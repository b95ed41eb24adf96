// The indexer's logits of e4m3 queries against cached keys of e4m3, each with scales.

#include "eight_bits.h"
#include "indexer.cpp"
#include "layouts.h"

namespace {

// One request's cached keys: each with its scales behind it, or a page's keys before its scales.
struct ScaledKeys {
  const uint8_t *cache;
  const int32_t *pages;
  int64_t page_tokens, dim, num_pages;
  bool is_paged;
  void widen(int64_t position, float *to) const {
    int64_t scale_bytes = 4 * parts(dim, UNDER_A_SCALE), token = position % page_tokens;
    int64_t own = pages[position / page_tokens];
    const uint8_t *page =
        cache + (is_of(own, num_pages) ? own : 0) * page_tokens * (dim + scale_bytes);
    const uint8_t *key = page + token * (is_paged ? dim : dim + scale_bytes);
    const uint8_t *scales = is_paged ? page + page_tokens * dim + token * scale_bytes : key + dim;
    for (int64_t i = 0; i < dim; i += UNDER_A_SCALE)
      widen_block(to + i, (const f8 *)key + i, smaller(UNDER_A_SCALE, dim - i),
                  unaligned(scales + i / UNDER_A_SCALE * 4));
  }
};

void logits_fp8(void **params, Team *team) {
  const f8 *q = pointer<f8>(params, 0);
  const uint8_t *cache = pointer<uint8_t>(params, 2);
  const float *weights = pointer<float>(params, 1), *q_scales = pointer<float>(params, 22);
  const int32_t *positions = pointer<int32_t>(params, 3), *starts = pointer<int32_t>(params, 4);
  const int32_t *table = pointer<int32_t>(params, 5);
  float *logits = pointer<float>(params, 6);
  int64_t before = integer(params, 8), end_row = before + integer(params, 9);
  int64_t rows = real_rows(params, 7, end_row) - before, heads = integer(params, 10);
  int64_t dim = integer(params, 11), k = integer(params, 12), requests = integer(params, 13);
  int64_t pages = integer(params, 14), page_tokens = integer(params, 15), most = integer(params, 16);
  int64_t many = integer(params, 17), q_row = integer(params, 18), q_head = integer(params, 19);
  int64_t w_row = integer(params, 20);
  int64_t scale_row = integer(params, 23), scale_head = integer(params, 24);
  int64_t num_pages = integer(params, 26);
  bool is_paged = integer(params, 25);
  float scale = number(params, 21), *keys = (float *)team->scratch;
  float *wide_q = keys + SPAN * dim, *room = wide_q + heads * dim;
  int64_t filled = parts(heads, HEADS_AT_ONCE) * HEADS_AT_ONCE;
  Asked asked = {filled, dim, room, room + filled * dim};
  int64_t spans = parts(most, SPAN), groups = parts(larger(rows, 0), many);
  const int32_t here = 0;
  Cached<float> held = {keys, &here, SPAN, dim, 1}; // a page of its own
  for (int64_t c; (c = take(team, groups * spans)) >= 0;) {
    int64_t first = c % groups * many, begin = c / groups * SPAN;
    int64_t request = -1, widened = 0; // whose keys are held, and to which position
    for (int64_t row = first; row < smaller(first + many, rows); row++) {
      int64_t r = before + row, sees = positions[r];
      int64_t end = smaller(smaller(begin + SPAN, most), sees + 1);
      if (sees < k || begin >= end)
        continue;
      int64_t own = request_of(starts, requests, r);
      ScaledKeys cached = {cache, table + own * pages, page_tokens, dim, num_pages,
                           is_paged};
      for (int64_t p = own == request ? widened : begin; p < end; p++)
        cached.widen(p, keys + (p - begin) * dim);
      widened = own == request ? larger(widened, end) : end;
      request = own;
      for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < dim; i += UNDER_A_SCALE)
          widen_block(wide_q + h * dim + i, q + r * q_row + h * q_head + i,
                      smaller(UNDER_A_SCALE, dim - i),
                      q_scales[r * scale_row + h * scale_head + i / UNDER_A_SCALE]);
      asked.take(wide_q, dim, heads, weights + r * w_row, scale);
      logits_of(asked, held, 0, end - begin, logits + row * most + begin);
    }
  }
}

} // namespace

// As index_logits, of e4m3 with scales.
// Parameters: those of index_logits, then the scales of q, their row and head, whether pages hold
// keys before scales; the driver adds the cache's pages. Scratch: SPAN keys and the heads of a row as f32, then as index_logits.
KERNEL_OF(index_logits_fp8, logits_fp8)
