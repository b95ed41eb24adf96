// Which experts a row goes to, and what they make of it.

#include "scaled.h"
#include "team.h"

namespace {

// The slots (row times choices plus choice) that chose an expert, in order.
inline int64_t slots_of(const int32_t *ids, int64_t count, int32_t expert, int32_t *slots) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; i++) {
    slots[found] = (int32_t)i;
    found += ids[i] == expert;
  }
  return found;
}

// Rows of x that chose an expert; e4m3 has scales, parameters 14 and on: these, their row.
template <typename X> inline auto listed(void **params, const int32_t *list) {
  return Listed<X>{pointer<X>(params, 0), integer(params, 13), list};
}
template <> inline auto listed<f8>(void **params, const int32_t *list) {
  return ScaledRows<Listed<f8>, Listed<float>>{
      {pointer<f8>(params, 0), integer(params, 13), list},
      {pointer<float>(params, 14), integer(params, 15), list}};
}

template <typename X, typename W> void experts_gate_up(void **params, Team *team) {
  const int32_t *ids = pointer<int32_t>(params, 1);
  float *hidden = pointer<float>(params, 6);
  int64_t most = integer(params, 8), rows = real_rows(params, 7, most);
  int64_t choices = integer(params, 9), experts = integer(params, 10);
  int64_t count = integer(params, 11), columns = integer(params, 12);
  Tiles<W> gate = packed<W>(params, 2, count), up = packed<W>(params, 4, count);
  int64_t num_tiles = parts(columns, TILE), groups = parts(num_tiles, GROUP);
  Room *room = (Room *)team->scratch;
  int32_t *slots = (int32_t *)(room + 1), *from = slots + most * choices + 1;
  for (int64_t c; (c = take(team, experts * groups)) >= 0;) {
    int64_t expert = c / groups, first = c % groups * GROUP;
    int64_t held = slots_of(ids, rows * choices, (int32_t)expert, slots);
    for (int64_t i = 0; i < held; i++)
      from[i] = slots[i] / (int32_t)choices;
    Tiles<W> own_gate = gate.matrix(expert, num_tiles), own_up = up.matrix(expert, num_tiles);
    for (int64_t r = 0; r < held; r += ROW_BLOCK)
      gated_columns<float>(listed<X>(params, from + r), smaller(ROW_BLOCK, held - r), own_gate,
                           own_up, count, columns, first, smaller(GROUP, num_tiles - first),
                           Places<float>{hidden, columns, slots + r}, room);
  }
}

template <typename W, typename X = Listed<float>>
void experts_down(void **params, Team *team) {
  const float *hidden = pointer<float>(params, 0);
  const int32_t *ids = pointer<int32_t>(params, 1);
  float *made = pointer<float>(params, 4);
  int64_t rows = real_rows(params, 5, integer(params, 6));
  int64_t choices = integer(params, 7), experts = integer(params, 8);
  int64_t count = integer(params, 9), columns = integer(params, 10);
  Tiles<W> w = packed<W>(params, 2, count);
  int64_t num_tiles = parts(columns, TILE), groups = parts(num_tiles, GROUP);
  Room *room = (Room *)team->scratch;
  int32_t *slots = (int32_t *)(room + 1);
  for (int64_t c; (c = take(team, experts * groups)) >= 0;) {
    int64_t expert = c / groups, first = c % groups * GROUP;
    int64_t held = slots_of(ids, rows * choices, (int32_t)expert, slots);
    Tiles<W> own = w.matrix(expert, num_tiles);
    for (int64_t r = 0; r < held; r += ROW_BLOCK)
      columns_of(X{hidden, count, slots + r}, smaller(ROW_BLOCK, held - r), own, count, columns,
                 first, smaller(GROUP, num_tiles - first), Places<float>{made, columns, slots + r},
                 room);
  }
}

// hidden, in f32, as e4m3 holds it with a scale for each 128 columns.
void experts_round(void **params, Team *team) {
  float *hidden = pointer<float>(params, 0);
  const int32_t *ids = pointer<int32_t>(params, 1);
  int64_t rows = real_rows(params, 2, integer(params, 3)), choices = integer(params, 4);
  int64_t width = integer(params, 5);
  bool powers = integer(params, 6);
  for (int64_t slot; (slot = take(team, rows * choices)) >= 0;)
    for (int64_t i = 0; ids[slot] >= 0 && i < width; i += SCALED) {
      f8 held[SCALED];
      float *own = hidden + slot * width + i;
      int64_t count = smaller(SCALED, width - i);
      widen_block(own, held, count, quantise_block(held, own, count, powers));
    }
}

} // namespace

// hidden [T * choices, I] = silu(x . gate) * (x . up) of each slot's expert, in f32; both weights
// [E][I, D]. By the types of x and weights.
// Parameters: x, ids, gate, its scales or null, up, its scales or null, hidden, num_rows, T, choices,
// E, D, I, row of x; of q8 the scales of x, their row.
// Scratch: a Room, then two lists of T * choices + 1.
KERNEL_OF(experts_gate_up_f32, experts_gate_up<float, float>)
KERNEL_OF(experts_gate_up_bf16, experts_gate_up<bf16, bf16>)
KERNEL_OF(experts_gate_up_bf16_f8, experts_gate_up<bf16, f8>)
KERNEL_OF(experts_gate_up_bf16_s8, experts_gate_up<bf16, s8>)
KERNEL_OF(experts_gate_up_f32_f8, experts_gate_up<float, f8>)
KERNEL_OF(experts_gate_up_f32_s8, experts_gate_up<float, s8>)
KERNEL_OF(experts_gate_up_q8_f8, experts_gate_up<f8, f8>)

// In place, what experts_gate_up made of rows that chose an expert.
// Parameters: hidden, ids, num_rows, T, choices, I, whether scales are powers of two.
KERNEL_OF(experts_round_f8, experts_round)

// made [T * choices, D] = hidden . down of each slot's expert, in f32; weight [E][D, I]. By its type;
// bf16_s8 is int8 in a model of bf16.
// Parameters: hidden, ids, weight, its scales or null, made, num_rows, T, choices, E, I, D.
// Scratch: a Room, then a list of T * choices + 1.
KERNEL_OF(experts_down_f32, experts_down<float>)
KERNEL_OF(experts_down_bf16, experts_down<bf16>)
KERNEL_OF(experts_down_f8, experts_down<f8>)
KERNEL_OF(experts_down_s8, experts_down<s8>)
KERNEL_OF(experts_down_bf16_s8, experts_down<s8, ListedInBf16>)

extern "C" {

// out [T, D] = the weighted sum of a row's slots; one that chose no expert adds nothing.
// Parameters: made, ids, weights, out, num_rows, T, choices, D, row of out.
void KERNEL(experts_sum_f32)(void **params, Team *team) {
  const float *made = pointer<float>(params, 0), *weights = pointer<float>(params, 2);
  const int32_t *ids = pointer<int32_t>(params, 1);
  float *out = pointer<float>(params, 3);
  int64_t rows = real_rows(params, 4, integer(params, 5)), choices = integer(params, 6);
  int64_t columns = integer(params, 7), out_row = integer(params, 8);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    float *to = out + r * out_row;
    for (int64_t n = 0; n < columns; n++)
      to[n] = 0.0f;
    for (int64_t j = r * choices; j < (r + 1) * choices; j++)
      if (ids[j] >= 0)
        for (int64_t n = 0; n < columns; n++)
          to[n] += weights[j] * made[j * columns + n];
  }
}

// ids and weights [T, K] of noaux_tc: experts are chosen by biased scores of the best groups, and
// weighed by scores without. The lowest index wins ties. Rows without a token choose none.
// Parameters: logits, bias, positions, ids, weights, num_rows, T, E, K, groups, groups that stay,
// whether weights are normalised, row of logits, scale. Scratch: 3 E floats.
void KERNEL(route_f32)(void **params, Team *team) {
  const float *logits = pointer<float>(params, 0), *bias = pointer<float>(params, 1);
  const int32_t *positions = pointer<int32_t>(params, 2);
  int32_t *ids = pointer<int32_t>(params, 3);
  float *weights = pointer<float>(params, 4);
  int64_t most = integer(params, 6), rows = real_rows(params, 5, most);
  int64_t experts = integer(params, 7), choices = integer(params, 8);
  int64_t groups = integer(params, 9), stay = integer(params, 10), normalise = integer(params, 11);
  int64_t logits_row = integer(params, 12), each = experts / groups;
  float scale = number(params, 13), never = -__builtin_inff();
  float *scores = (float *)team->scratch, *biased = scores + experts, *best = biased + experts;
  for (int64_t r; (r = take(team, most)) >= 0;) {
    int32_t *to = ids + r * choices;
    float *weight = weights + r * choices;
    if (r >= rows || positions[r] < 0) {
      for (int64_t j = 0; j < choices; j++)
        to[j] = -1, weight[j] = 0.0f;
      continue;
    }
    for (int64_t e = 0; e < experts; e++) {
      scores[e] = 1.0f / (1.0f + exp_one(-logits[r * logits_row + e]));
      biased[e] = scores[e] + bias[e];
    }
    if (stay < groups) {
      for (int64_t g = 0; g < groups; g++) {
        float first = never, second = never;
        for (int64_t e = g * each; e < (g + 1) * each; e++) {
          float held = biased[e];
          if (held > first)
            second = first, first = held;
          else if (held > second)
            second = held;
        }
        best[g] = each > 1 ? first + second : first;
      }
      for (int64_t g = 0; g < groups; g++) {
        int64_t before = 0;
        for (int64_t o = 0; o < groups; o++)
          before += best[o] > best[g] || (best[o] == best[g] && o < g);
        if (before >= stay)
          for (int64_t e = g * each; e < (g + 1) * each; e++)
            biased[e] = never;
      }
    }
    float sum = 0.0f;
    for (int64_t j = 0; j < choices; j++) {
      int64_t found = 0;
      for (int64_t e = 1; e < experts; e++)
        if (biased[e] > biased[found])
          found = e;
      to[j] = (int32_t)found;
      weight[j] = scores[found];
      sum += weight[j];
      biased[found] = never;
    }
    for (int64_t j = 0; j < choices; j++)
      weight[j] = (normalise ? weight[j] / (sum + 1e-20f) : weight[j]) * scale;
  }
}
}
