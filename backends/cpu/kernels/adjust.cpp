// What is done to logits before a nucleus: penalties, biases, masks of ids.

#include "row_parts.h"

namespace {

// A logit less what is asked for an id that has come: an output so many times, or in the prompt.
struct Penalties {
  float repetition, frequency, presence;
  float of(float x, int32_t outputs, bool is_prompt) const {
    bool is_seen = is_prompt | (outputs > 0);
    float repeated = x > 0 ? x / repetition : x * repetition;
    x = is_seen ? repeated : x;
    return x - frequency * (float)outputs - (outputs > 0 ? presence : 0.0f);
  }
};

inline void penalise(const float *x, const int32_t *counts, const int32_t *recent, int64_t many,
                     Penalties asked, float *out, Piece at) {
  for (int64_t id = at.begin; id < at.end; id++)
    out[id] = asked.of(x[id], counts[id] >> 1, counts[id] & 1);
  for (int64_t n = 0; n < many; n++) {
    int64_t id = recent[n];
    if (id < at.begin || id >= at.end)
      continue;
    int32_t outputs = counts[id] >> 1;
    for (int64_t m = 0; m < many; m++)
      outputs += recent[m] == id;
    out[id] = asked.of(x[id], outputs, counts[id] & 1);
  }
}

inline void mask(const int32_t *words, float *out, Piece at) {
  for (int64_t id = at.begin; id < at.end; id++)
    out[id] = (uint32_t)words[id / 32] >> (id % 32) & 1 ? out[id] : NOTHING;
}

} // namespace

extern "C" {

// Logits with what each row asks for; a row that asks for nothing (-1, or a row that the state does
// not have) passes bit for bit. Of penalties, biases and masks those that are not taken are null.
// Parameters: logits, out, counts, count_rows, recent, repetition, frequency, presence, biases,
// bias_rows, masks, mask_rows, num_rows, rows, width, ids of a part (a multiple of 32), ids of
// recent, rows of counts, biases and masks that there are, rows of logits, out, counts, biases and
// masks in memory.
void KERNEL(adjust_logits)(void **params, Team *team) {
  const float *logits = pointer<float>(params, 0);
  float *adjusted = pointer<float>(params, 1);
  const int32_t *counts = pointer<int32_t>(params, 2), *count_rows = pointer<int32_t>(params, 3);
  const int32_t *recent = pointer<int32_t>(params, 4);
  const float *repetition = pointer<float>(params, 5), *frequency = pointer<float>(params, 6);
  const float *presence = pointer<float>(params, 7), *biases = pointer<float>(params, 8);
  const int32_t *bias_rows = pointer<int32_t>(params, 9), *masks = pointer<int32_t>(params, 10);
  const int32_t *mask_rows = pointer<int32_t>(params, 11);
  int64_t rows = real_rows(params, 12, integer(params, 13)), width = integer(params, 14);
  int64_t ids = integer(params, 15), many = integer(params, 16), count = parts(width, ids);
  int64_t num_counts = integer(params, 17), num_biases = integer(params, 18);
  int64_t num_masks = integer(params, 19), logits_row = integer(params, 20);
  int64_t out_row = integer(params, 21), counts_row = integer(params, 22);
  int64_t biases_row = integer(params, 23), masks_row = integer(params, 24);
  for (int64_t c; (c = take(team, rows * count)) >= 0;) {
    Piece at(c, count, ids, width);
    int64_t r = at.row;
    const float *x = logits + r * logits_row;
    float *out = adjusted + r * out_row;
    int64_t counted = count_rows ? count_rows[r] : -1, biased = bias_rows ? bias_rows[r] : -1;
    int64_t masked = mask_rows ? mask_rows[r] : -1;
    if (is_of(counted, num_counts))
      penalise(x, counts + counted * counts_row, recent + r * many, many,
               {repetition[r], frequency[r], presence[r]}, out, at);
    else
      copy(out + at.begin, x + at.begin, at.end - at.begin);
    if (is_of(biased, num_biases)) {
      const float *bias = biases + biased * biases_row;
      for (int64_t id = at.begin; id < at.end; id++)
        out[id] += bias[id];
    }
    if (is_of(masked, num_masks))
      mask(masks + masked * masks_row, out, at);
  }
}
}
