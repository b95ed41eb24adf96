// What ends a head: picks, log-probabilities, first ids. Two launches each, over parts of rows and
// over rows.

#include "row_parts.h"

namespace {

// What the largest of is picked: the logit, or at a temperature the logit divided by it and noise
// of (seed, counter, id), as `ir/reference/sample.py` defines it.
struct Scores {
  double heat, inverse;
  uint32_t row; // seed and counter in the sum that is hashed

  Scores(float temperature, int32_t seed, int32_t counter)
      : heat(temperature), inverse(temperature > 0 ? 1 / (double)temperature : 0),
        row((uint32_t)seed * 0x9E3779B1u + (uint32_t)counter * 0x85EBCA77u) {}

  template <typename Bits> static Bits mixed(Bits x) {
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ x >> 16;
  }

  double of(float x, int64_t id) const {
    if (!(heat > 0))
      return x;
    uint32_t bits = mixed(row + (uint32_t)id * 0xC2B2AE3Du);
    double u = ((bits >> 8) + 0.5) / 16777216.0;
    return x / heat - log_of(-log_of(u));
  }

  // Whether one of the ids from i on may have a better score. -log(-log(u)) is at most -log(1 - u),
  // and a float's bits are, as a whole number, a logarithm that is never too large.
  bool may_beat(double best, vf x, int64_t i) const {
    if (!(heat > 0))
      return any(~(wide(x) <= both(best)));
    vu lanes;
    for (int lane = 0; lane < LANES; lane++)
      lanes[lane] = (uint32_t)lane;
    vu bits = mixed(((uint32_t)i + lanes) * 0xC2B2AE3Du + row) >> 8;
    vf left = __builtin_convertvector((vi)(16777216u - bits), vf) - same(0.5f);
    vf log2 = __builtin_convertvector((vi)left, vf) * same(0x1p-23f) - same(151.0f);
    vd score = wide(x) * both(inverse);
    score *= chosen(score < both(0.0), both(1 - 1e-12), both(1 + 1e-12)); // and above all rounding
    return any(~(score - wide(log2) * both(LN2) + both(1e-3) <= both(best)));
  }
};

inline void take_better(Part *best, double score, int32_t id) { // NaN is better than all
  if (score > best->score || (score != score && best->score == best->score)) {
    best->score = score;
    best->id = id;
  }
}

inline void pick_part(const float *x, int64_t begin, int64_t end, Scores scores, Part *own) {
  own->score = NOTHING;
  own->id = (int32_t)begin;
  for (int64_t i = begin; i < end && own->score == own->score; i += LANES)
    if (scores.may_beat(own->score, logits_at(x, i, end), i))
      for (int64_t id = i; id < smaller(i + LANES, end); id++)
        take_better(own, scores.of(x[id], id), (int32_t)id);
}

// A key among the best ones so far, largest first.
inline void insert(uint64_t *best, int64_t count, uint64_t key) {
  int64_t at = count - 1;
  if (key <= best[at])
    return;
  for (; at > 0 && best[at - 1] < key; at--)
    best[at] = best[at - 1];
  best[at] = key;
}

inline void first_of_part(const float *x, int64_t begin, int64_t end, int64_t count,
                          uint64_t *best) {
  for (int64_t i = 0; i < count; i++)
    best[i] = 0;
  for (int64_t i = begin; i < end; i += LANES) {
    uint64_t last = best[count - 1];
    bool is_full = last >> 32; // and its last is no NaN: a later id must be larger
    if (!is_full || any(logits_at(x, i, end) > same(logit_of(last))))
      for (int64_t id = i; id < smaller(i + LANES, end); id++)
        insert(best, count, key_of(x[id], id));
  }
}

} // namespace

extern "C" {

// Of each part of a row its largest logit and sum of exponentials; where temperatures are given,
// the best score with its id.
// Parameters: logits, temperature or null, seeds, counters, parts of all rows, num_rows, rows,
// width, ids of a part, row of logits.
void KERNEL(head_parts)(void **params, Team *team) {
  const float *logits = pointer<float>(params, 0), *temperature = pointer<float>(params, 1);
  const int32_t *seeds = pointer<int32_t>(params, 2), *counters = pointer<int32_t>(params, 3);
  Part *found = pointer<Part>(params, 4);
  int64_t rows = real_rows(params, 5, integer(params, 6)), width = integer(params, 7);
  int64_t ids = integer(params, 8), logits_row = integer(params, 9), count = parts(width, ids);
  for (int64_t c; (c = take(team, rows * count)) >= 0;) {
    Piece piece(c, count, ids, width);
    const float *x = logits + piece.row * logits_row;
    sum_part(x, piece.begin, piece.end, found + c);
    if (temperature)
      pick_part(x, piece.begin, piece.end,
                Scores(temperature[piece.row], seeds[piece.row], counters[piece.row]), found + c);
  }
}

// Each row's id, and its log-probability.
// Parameters: logits, parts of all rows, ids, logprobs, num_rows, rows, width, ids of a part, row
// of logits.
void KERNEL(head_pick)(void **params, Team *team) {
  const float *logits = pointer<float>(params, 0);
  const Part *found = pointer<Part>(params, 1);
  int32_t *picked = pointer<int32_t>(params, 2);
  float *logprobs = pointer<float>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5)), width = integer(params, 6);
  int64_t count = parts(width, integer(params, 7)), logits_row = integer(params, 8);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    const Part *own = found + r * count;
    Part best = own[0];
    for (int64_t p = 1; p < count; p++)
      take_better(&best, own[p].score, own[p].id);
    picked[r] = best.id;
    logprobs[r] = Logprobs(own, count).of(logits + r * logits_row, best.id, width);
  }
}

// The log-probability of each row's target, 0 where that is -1.
// Parameters: logits, parts of all rows, targets, logprobs, num_rows, rows, width, ids of a part,
// row of logits.
void KERNEL(head_logprob)(void **params, Team *team) {
  const float *logits = pointer<float>(params, 0);
  const Part *found = pointer<Part>(params, 1);
  const int32_t *targets = pointer<int32_t>(params, 2);
  float *logprobs = pointer<float>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5)), width = integer(params, 6);
  int64_t count = parts(width, integer(params, 7)), logits_row = integer(params, 8);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    Logprobs own(found + r * count, count);
    logprobs[r] = targets[r] < 0 ? 0.0f : own.of(logits + r * logits_row, targets[r], width);
  }
}

// The first n of each part in the order of rows, as keys, 0 where the part has fewer.
// Parameters: logits, keys [rows, parts, n], num_rows, rows, width, ids of a part, n, row of logits.
void KERNEL(head_first_of_parts)(void **params, Team *team) {
  const float *logits = pointer<float>(params, 0);
  uint64_t *keys = pointer<uint64_t>(params, 1);
  int64_t rows = real_rows(params, 2, integer(params, 3)), width = integer(params, 4);
  int64_t ids = integer(params, 5), n = integer(params, 6), logits_row = integer(params, 7);
  int64_t count = parts(width, ids);
  for (int64_t c; (c = take(team, rows * count)) >= 0;) {
    Piece piece(c, count, ids, width);
    first_of_part(logits + piece.row * logits_row, piece.begin, piece.end, n, keys + c * n);
  }
}

// The first n ids of each row with their log-probabilities.
// Parameters: logits, parts of all rows, keys [rows, parts, n], ids [rows, n], logprobs [rows, n],
// num_rows, rows, width, ids of a part, n, row of logits. Scratch: n keys.
void KERNEL(head_first)(void **params, Team *team) {
  const float *logits = pointer<float>(params, 0);
  const Part *found = pointer<Part>(params, 1);
  const uint64_t *keys = pointer<uint64_t>(params, 2);
  int32_t *first = pointer<int32_t>(params, 3);
  float *logprobs = pointer<float>(params, 4);
  int64_t rows = real_rows(params, 5, integer(params, 6)), width = integer(params, 7);
  int64_t count = parts(width, integer(params, 8)), n = integer(params, 9);
  int64_t logits_row = integer(params, 10);
  uint64_t *best = (uint64_t *)team->scratch;
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    for (int64_t i = 0; i < n; i++)
      best[i] = 0;
    for (int64_t i = 0; i < count * n; i++)
      insert(best, n, keys[r * count * n + i]);
    Logprobs own(found + r * count, count);
    for (int64_t i = 0; i < n; i++) {
      first[r * n + i] = id_of(best[i]);
      logprobs[r * n + i] = own.of(logits + r * logits_row, id_of(best[i]), width);
    }
  }
}
}
