// A warpgroup's logits of a page: 64 keys are the M side of a product, the heads of ROWS_EACH rows its N
// side, so that the sum over heads is within a thread but for four lanes.
#pragma once
#include "../hopper/tiles.h"
#include "layout.h"
#include "products.h"

struct Scores {
  const float *weights, *query_scales;  // [rows, HEADS]; scales of fp8 alone
  long long weights_stride, query_scale_stride;
  const int* positions;
  float* out;  // of the launch's first row
  long long out_stride;
  int first_row;
  float scale;
};

// Of the warpgroup's rows: weights of the lane's heads (of each 8 heads 2 (l % 4) and the next), with all
// that scales them. And of the rows that the lane writes: where, and what they see.
struct Rows {
  static constexpr int WRITTEN = ROWS_EACH == 4 ? 2 : 1;
  float weight[ROWS_EACH][HEADS / 4];
  float* out[WRITTEN];  // nullptr for a row that is none
  int position[WRITTEN];
};

// The lane's key among a warp's 16, and the first of the rows that it writes.
INLINE int key_of(int lane) { return lane / 4 + 8 * (lane & 1); }
INLINE int written_row(int lane) { return (lane >> 1 & 1) * (ROWS_EACH == 1 ? 0 : ROWS_EACH / 2); }

// `row` is the step's first of the warpgroup's, of which `count` exist.
INLINE void read_rows(Rows& rows, const Scores& scores, int row, int count, int lane) {
#pragma unroll
  for (int i = 0; i < ROWS_EACH; i++) {
    const long long from = row + min(i, count - 1);
    const float* weights = scores.weights + from * scores.weights_stride + 2 * (lane & 3);
    const float* query_scales = scores.query_scales + from * scores.query_scale_stride + 2 * (lane & 3);
#pragma unroll
    for (int j = 0; j < HEADS / 4; j++) {
      const int head = j / 2 * 8 + j % 2;
      const float query_scale = IS_FP8 ? read_global(query_scales + head) : 1.f;
      rows.weight[i][j] = read_global(weights + head) * query_scale * scores.scale;
    }
  }
#pragma unroll
  for (int i = 0; i < Rows::WRITTEN; i++) {
    const int own = written_row(lane) + i;
    const bool writes = own < count && (ROWS_EACH > 1 || (lane & 2) == 0);
    rows.position[i] = writes ? scores.positions[row + own] : -1;
    rows.out[i] = writes ? scores.out + (row + own - scores.first_row) * scores.out_stride : nullptr;
  }
}

// A scale lies behind the fp8 keys, swizzled as they are.
INLINE u32 scale_at(u32 stage, int key) {
  const u32 row = PAGE + key / 32, chunk = key % 32 / 4;
  return stage + row * BOX_WIDTH + ((chunk ^ (row & 7)) << 4) + key % 4 * 4;
}

// The weighted sums of the lane's heads, then over the four lanes that hold a key's: each keeps the key
// and the rows that it writes. The order is the same for any ROWS_EACH.
INLINE void sum_heads(float (&sums)[Rows::WRITTEN], const float (&found)[COLUMNS / 2], const Rows& rows, int lane) {
  float of_half[ROWS_EACH];
#pragma unroll
  for (int i = 0; i < ROWS_EACH; i++) {
    float low = 0.f, high = 0.f;
#pragma unroll
    for (int j = 0; j < HEADS / 4; j++) {
      const int at = i * (HEADS / 2) + j / 2 * 4 + j % 2;
      low = fmaf(max_or_nan(found[at], 0.f), rows.weight[i][j], low);
      high = fmaf(max_or_nan(found[at + 2], 0.f), rows.weight[i][j], high);
    }
    const float given = __shfl_xor_sync(EVERY_LANE, lane & 1 ? low : high, 1);
    of_half[i] = (lane & 1 ? high : low) + given;
  }
#pragma unroll
  for (int i = 0; i < Rows::WRITTEN; i++) {
    const float first = of_half[i], second = of_half[i + ROWS_EACH / 2];
    const float given = __shfl_xor_sync(EVERY_LANE, lane & 2 ? first : second, 2);
    sums[i] = (lane & 2 ? second : first) + given;
  }
}

// The page at a place of the ring, which is free again once its products are done. Each lane arrives for
// itself. `column` is the page's first.
INLINE void score_page(const Rows& rows, u32 shared, const Place<STAGES>& place, u32 queries, int column, int warp,
                       int lane) {
  const u32 stage = stage_at(shared, place.at);
  const int key = warp % 4 * 16 + key_of(lane);
  float found[COLUMNS / 2];
  wait_for(full_barrier(shared, place.at), place.parity);
  hold_sums(found);
  products_begin();
#pragma unroll
  for (int box = 0; box < BOXES; box++)
#pragma unroll
    for (int k = 0; k < BOX_WIDTH; k += 32)
      add_product(found, stage + box * PAGE_BOX + k, queries + box * QUERY_BOX + k, box + k);
  products_commit();
  const float key_scale = IS_FP8 ? load(scale_at(stage, key)) : 1.f;
  hold_sums(found);
  products_wait<0>();
  hold_sums(found);
  arrive(empty_barrier(shared, place.at));
  float sums[Rows::WRITTEN];
  sum_heads(sums, found, rows, lane);
#pragma unroll
  for (int i = 0; i < Rows::WRITTEN; i++)
    if (rows.out[i] != nullptr)
      rows.out[i][column + key] = column + key <= rows.position[i] ? sums[i] * key_scale : __uint_as_float(NO_LOGIT);
}

// All tiles of the CTA by one warpgroup: of each its group of rows, against every KEY_GROUPS-th page.
INLINE void score_tiles(u32 shared, const Scores& scores, const RowTile* tiles, Start from, Start to, int warp,
                        int lane) {
  const int row_group = warp / 4 % ROW_GROUPS, key_group = warp / 4 / ROW_GROUPS;
  Place<STAGES> page;
  Place<TILES> query;
  int turn = 0;  // of the key groups
  for (int t = from.tile; t < end_of(to); t++) {
    const RowTile tile = tiles[t];
    const Span span = span_of(t, tile, from, to);
    if (span.begin >= span.end) continue;
    const int count = min(tile.rows - row_group * ROWS_EACH, ROWS_EACH);
    Rows rows;
    if (count > 0) read_rows(rows, scores, tile.row + row_group * ROWS_EACH, count, lane);
    const int place = queries_place(query.at, row_group);
    wait_for(full_barrier(shared, place), query.parity);
    const u32 queries = queries_at(shared, query.at, row_group);
    for (int number = span.begin; number < span.end; number++, page.next()) {
      const bool is_own = turn == key_group;
      turn = turn + 1 == KEY_GROUPS ? 0 : turn + 1;
      if (!is_own) continue;
      if (count > 0) {
        score_page(rows, shared, page, queries, number * PAGE, warp, lane);
      } else {  // it only lets the page go
        wait_for(full_barrier(shared, page.at), page.parity);
        arrive(empty_barrier(shared, page.at));
      }
    }
    arrive(empty_barrier(shared, place));
    query.next();
  }
}
