// Latent attention of many rows over the paged cache, expanded: a head's keys and values are made
// of the cached rows once for all rows of a tile, 64 positions at a time from the first on. A row's
// sums go by positions alone, so that they depend on no row beside it.

#include "cache.h"
#include "lines.h"
#include "multiply.h"
#include "team.h"
#include "turned.h"

namespace {

const int64_t PANEL = WIDE; // positions that are made at a time: bits of a mask

// What a thread takes beside a Room, for `rows` rows of a tile.
template <typename C> struct Expansion {
  float *keys;   // [nope][PANEL]
  float *values; // [PANEL][value, in whole tiles]
  float *sums;   // [rows][value, in whole tiles]: of shares times values
  float *most;   // [rows] scores so far
  float *total;  // [rows]: of shares
  C *cached;     // [width][PANEL]

  Expansion(float *room, int64_t rows, int64_t nope, int64_t value)
      : keys(room), values(keys + nope * PANEL), sums(values + PANEL * value),
        most(sums + rows * value), total(most + rows), cached((C *)(total + rows)) {}
};

// Which of 64 positions from `first` on a row sees.
struct Seen {
  const uint64_t *marks; // by row and 64 positions, or null: all up to the row's own
  int64_t words;
  const int32_t *positions;
  int64_t limit;
  uint64_t at(int64_t r, int64_t first) const {
    if (marks)
      return positions[r] < 0 ? 0 : marks[r * words + first / PANEL];
    int64_t count = smaller(positions[r] + 1, limit) - first;
    return count <= 0 ? 0 : count >= PANEL ? ~(uint64_t)0 : ((uint64_t)1 << count) - 1;
  }
  uint64_t any(int64_t r, int64_t end, int64_t first) const {
    uint64_t found = 0;
    for (; r < end; r++)
      found |= at(r, first);
    return found;
  }
};

// The lanes of a vector whose bit is set.
inline vi lanes_of(uint32_t bits) {
#if LANES == 16
  const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif LANES == 8
  const vi lane = {0, 1, 2, 3, 4, 5, 6, 7};
#else
  const vi lane = {0, 1, 2, 3};
#endif
  return (((vi{} + (int32_t)bits) >> lane) & 1) != 0;
}

// A row's scores become its shares of what it sees; what it has summed so far shrinks with the
// larger of the scores.
inline void shares_of(float *scores, uint64_t seen, float scale, float *sums, int64_t value,
                      float *most, float *total) {
  const int COUNT = PANEL / LANES;
  if (!seen) {
    for (int v = 0; v < COUNT; v++)
      store(scores + v * LANES, same(0.0f));
    return;
  }
  const float never = -__builtin_inff();
  vf held[COUNT], largest = same(*most);
  vi visible[COUNT];
#pragma GCC unroll 8
  for (int v = 0; v < COUNT; v++) {
    visible[v] = lanes_of((uint32_t)(seen >> v * LANES));
    held[v] = chosen(visible[v], load(scores + v * LANES) * same(scale), same(never));
    largest = chosen(held[v] > largest, held[v], largest);
  }
  float now = largest_of(largest);
  if (now == never) // of what it sees, too
    now = 0.0f;
  vf all = same(0.0f);
#pragma GCC unroll 8
  for (int v = 0; v < COUNT; v++) {
    vf share = chosen(visible[v], exp_of(held[v] - same(now)), same(0.0f));
    store(scores + v * LANES, share);
    all += share;
  }
  if (now != *most) {
    float left = exp_one(*most - now);
    *total *= left;
    for (int64_t n = 0; n < value; n += LANES)
      store(sums + n, load(sums + n) * same(left));
    *most = now;
  }
  *total += sum_of(all);
}

// The cached rows of up to 64 positions as columns.
template <typename C>
void gather(Cached<C> own, int64_t first, int64_t length, int64_t width, C *to) {
  for (int64_t p = 0; p < PANEL; p += LANES) {
    const C *rows[LANES];
    int64_t held = smaller(larger(length - first - p, 0), LANES);
    for (int64_t i = 0; i < held; i++)
      rows[i] = own[first + p + i];
    turn_rows(rows, held, width, to + p, PANEL);
  }
}

// Of 64 cached rows what so many lines of kv_b make, [count][64].
template <typename W, typename C>
void made_of(Lines<W> lines, int64_t count, Tiles<C> cached, int64_t latent, float *to,
             Room *products) {
  multiply(lines.rows(), count, cached, latent, Places<float>{to, PANEL, nullptr}, GROUP, products);
  if constexpr (requires { lines.of_sums(0); })
    for (int64_t n = 0; n < count; n++)
      for (int64_t p = n * PANEL; p < (n + 1) * PANEL; p += LANES)
        store(to + p, load(to + p) * same(lines.of_sums(n)));
}

// Keys [nope][64] and values [64][value] of a head, whose rows of kv_b are given.
template <typename W, typename C>
void expand(Lines<W> kv_b, int64_t latent, int64_t nope, int64_t value, int64_t value_row,
            Expansion<C> room, Room *products) {
  Tiles<C> cached = {room.cached, TILE, PANEL};
  for (int64_t n = 0; n < nope; n += ROW_BLOCK)
    made_of(kv_b.from(n), smaller(ROW_BLOCK, nope - n), cached, latent, room.keys + n * PANEL,
            products);
  float *made = products->whole[0];
  for (int64_t n = 0; n < value; n += ROW_BLOCK) {
    int64_t held = smaller(ROW_BLOCK, value - n);
    made_of(kv_b.from(nope + n), held, cached, latent, made, products);
    for (int64_t r = 0; r < held; r += LANES) {
      const float *rows[LANES];
      int64_t here = smaller(LANES, held - r);
      for (int64_t i = 0; i < here; i++)
        rows[i] = made + (r + i) * PANEL;
      turn_rows(rows, here, PANEL, room.values + n + r, value_row);
    }
  }
}

template <typename T, typename W, typename C> void attend_expanded(void **params, Team *team) {
  const T *q_nope = pointer<T>(params, 0), *q_pe = pointer<T>(params, 1);
  const C *cache = pointer<C>(params, 4);
  const int32_t *positions = pointer<int32_t>(params, 6), *starts = pointer<int32_t>(params, 7);
  const int32_t *table = pointer<int32_t>(params, 8);
  T *out = pointer<T>(params, 9);
  int64_t rows = real_rows(params, 10, integer(params, 11)), heads = integer(params, 12);
  int64_t nope = integer(params, 13), rope = integer(params, 14), value = integer(params, 15);
  int64_t latent = integer(params, 16), limit = integer(params, 17);
  int64_t requests = integer(params, 18), pages = integer(params, 19);
  int64_t page_tokens = integer(params, 20), row_tile = integer(params, 21);
  int64_t nope_row = integer(params, 22), nope_head = integer(params, 23);
  int64_t pe_row = integer(params, 24), pe_head = integer(params, 25), out_row = integer(params, 26);
  float scale = number(params, 27);
  int64_t num_pages = integer(params, 28);
  Lines<W> kv_b = lines_of<W>(params, 2, latent);
  Seen seen = {pointer<uint64_t>(params, 5), parts(limit, PANEL), positions, limit};
  int64_t width = latent + rope, value_tiles = parts(value, TILE), value_row = value_tiles * TILE;
  Room *products = (Room *)team->scratch;
  Expansion<C> room((float *)(products + 1), row_tile, nope, value_row);
  float *scores = products->whole[0];
  for (int64_t c; (c = take(team, heads * parts(rows, row_tile))) >= 0;) {
    int64_t h = c % heads, tile = c / heads * row_tile, tile_end = smaller(tile + row_tile, rows);
    Lines<W> own_kv_b = kv_b.from(h * (nope + value));
    for (int64_t begin = tile, end; begin < tile_end; begin = end) {
      int64_t request = request_of(starts, requests, begin);
      end = larger(begin + 1, smaller(tile_end, starts[request + 1]));
      Cached<C> own = {cache, table + request * pages, page_tokens, width, num_pages};
      int64_t length = 0;
      for (int64_t r = begin; r < end; r++)
        length = larger(length, smaller(positions[r] + 1, limit));
      int64_t count = end - begin;
      for (int64_t i = 0; i < count * value_row; i++)
        room.sums[i] = 0.0f;
      for (int64_t i = 0; i < count; i++)
        room.most[i] = -__builtin_inff(), room.total[i] = 0.0f;
      for (int64_t first = 0; first < length; first += PANEL) {
        if (!seen.any(begin, end, first))
          continue;
        gather(own, first, length, width, room.cached);
        expand(own_kv_b, latent, nope, value, value_row, room, products);
        for (int64_t r = begin; r < end; r += ROW_BLOCK) {
          int64_t held = smaller(ROW_BLOCK, end - r);
          if (!seen.any(r, r + held, first))
            continue;
          multiply(Rows<T>{q_nope + r * nope_row + h * nope_head, nope_row}, held,
                   Tiles<float>{room.keys, TILE, PANEL}, nope, Places<float>{scores, PANEL, nullptr},
                   GROUP, products);
          multiply(Rows<T>{q_pe + r * pe_row + h * pe_head, pe_row}, held,
                   Tiles<C>{room.cached + latent * PANEL, TILE, PANEL}, rope,
                   Places<float>{scores, PANEL, nullptr}, GROUP, products, true);
          for (int64_t i = 0; i < held; i++) {
            int64_t at = r - begin + i;
            shares_of(scores + i * PANEL, seen.at(r + i, first), scale, room.sums + at * value_row,
                      value_row, room.most + at, room.total + at);
          }
          all_rows(Rows<float>{scores, PANEL}, held, Tiles<float>{room.values, TILE, value_row},
                   PANEL, Places<float>{room.sums + (r - begin) * value_row, value_row, nullptr},
                   value_tiles, true);
        }
      }
      for (int64_t i = 0; i < count; i++) {
        const float *from = room.sums + i * value_row;
        T *to = out + (begin + i) * out_row + h * value;
        float part = room.total[i] == 0.0f ? 0.0f : 1.0f / room.total[i];
        int64_t n = 0;
        for (; n + LANES <= value; n += LANES)
          store(to + n, load(from + n) * same(part));
        for (; n < value; n++)
          store(to + n, from[n] * part);
      }
    }
  }
}

} // namespace

// out [T, H, value]: attention of q_nope and q_pe over each row's marked positions, or, without
// marks, over the first `limit` that it sees; zeros where there are none. Keys and values come of
// kv_b [H, nope + value, latent]. By the types of q and out, of kv_b, of the cache.
// Parameters: q_nope, q_pe, kv_b, its scales or null, cache, marks [T, limit / 64] or null,
// positions, q_starts, page_table, out, num_rows, T, H, nope, rope, value, latent, limit, B, pages,
// page_tokens, rows of a tile, row and head of q_nope, of q_pe, row of out, scale; the driver adds the
// cache's pages.
// Scratch: a Room, then an Expansion.
KERNEL_OF(attend_expanded_f32, attend_expanded<float, float, float>)
KERNEL_OF(attend_expanded_f32_f32_bf16, attend_expanded<float, float, bf16>)
KERNEL_OF(attend_expanded_f32_f8_f32, attend_expanded<float, f8, float>)
KERNEL_OF(attend_expanded_f32_f8_bf16, attend_expanded<float, f8, bf16>)
KERNEL_OF(attend_expanded_f32_s8_f32, attend_expanded<float, s8, float>)
KERNEL_OF(attend_expanded_f32_s8_bf16, attend_expanded<float, s8, bf16>)
KERNEL_OF(attend_expanded_bf16, attend_expanded<bf16, bf16, bf16>)
KERNEL_OF(attend_expanded_bf16_bf16_f32, attend_expanded<bf16, bf16, float>)
KERNEL_OF(attend_expanded_bf16_f8_bf16, attend_expanded<bf16, f8, bf16>)
KERNEL_OF(attend_expanded_bf16_f8_f32, attend_expanded<bf16, f8, float>)
KERNEL_OF(attend_expanded_bf16_s8_bf16, attend_expanded<bf16, s8, bf16>)
KERNEL_OF(attend_expanded_bf16_s8_f32, attend_expanded<bf16, s8, float>)

// marks [T, words] of 64 bits: the positions of a selection [T, K], ascending and then -1.
// Parameters: selection, marks, num_rows, T, K, words.
extern "C" void KERNEL(mark_selected)(void **params, Team *team) {
  const int32_t *selection = pointer<int32_t>(params, 0);
  uint64_t *marks = pointer<uint64_t>(params, 1);
  int64_t rows = real_rows(params, 2, integer(params, 3)), most = integer(params, 4);
  int64_t words = integer(params, 5);
  for (int64_t r; (r = take(team, rows)) >= 0;) {
    uint64_t *own = marks + r * words;
    for (int64_t i = 0; i < words; i++)
      own[i] = 0;
    for (int64_t i = 0; i < most && selection[r * most + i] >= 0; i++) {
      int64_t at = selection[r * most + i];
      if (is_of(at, words * PANEL))
        own[at / PANEL] |= (uint64_t)1 << at % PANEL;
    }
  }
}
