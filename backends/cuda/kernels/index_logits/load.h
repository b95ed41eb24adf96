// What the fourth or fifth warpgroup does: one warp keeps the ring full, three write what no row sees.
#pragma once
#include "../hopper/page_copy.h"
#include "layout.h"

// The queries of a tile's row groups, each once it is done with those before; of one without a row, none.
INLINE void load_queries(u32 shared, const TileMap& queries, const RowTile& tile, const Place<TILES>& place,
                         int lane) {
  for (int g = 0; g < ROW_GROUPS; g++) {
    const int at = queries_place(place.at, g);
    wait_for(empty_barrier(shared, at), place.parity ^ 1);
    if (lane != 0) continue;
    const bool has_rows = g * ROWS_EACH < tile.rows;
    const u32 full = full_barrier(shared, at), to = queries_at(shared, place.at, g);
    arrive_expecting(full, has_rows ? QUERY_BYTES : 0);
    for (int box = 0; has_rows && box < BOXES; box++)
      load_tile(to + box * QUERY_BOX, &queries, full, box * BOX_DIMS, (tile.row + g * ROWS_EACH) * HEADS);
  }
}

// Queries of each tile, then its pages, by the copy engine.
INLINE void load_pages(u32 shared, const TileMap& keys, const TileMap& queries, const RowTile* tiles, Start from,
                       Start to, const int* page_table, long long page_table_stride, int lane) {
  Place<STAGES> page;
  Place<TILES> query;
  for (int t = from.tile; t < end_of(to); t++) {
    const RowTile tile = tiles[t];
    const Span span = span_of(t, tile, from, to);
    if (span.begin >= span.end) continue;
    const int* pages = page_table + tile.request * page_table_stride;
    int numbers = span.begin + lane < span.end ? pages[span.begin + lane] : 0;
    load_queries(shared, queries, tile, query, lane);
    query.next();
    for (int start = span.begin; start < span.end; start += 32) {
      if (start > span.begin) numbers = start + lane < span.end ? pages[start + lane] : 0;
      for (int i = 0; i < min(32, span.end - start); i++, page.next()) {
        const int number = __shfl_sync(EVERY_LANE, numbers, i);
        wait_for(empty_barrier(shared, page.at), page.parity ^ 1);
        if (lane == 0) {
          const u32 full = full_barrier(shared, page.at);
          arrive_expecting(full, PAGE_BYTES);
          for (int box = 0; box < BOXES; box++)
            load_page(stage_at(shared, page.at) + box * PAGE_BOX, &keys, full, box * BOX_DIMS, number);
        }
      }
    }
  }
}

constexpr int FILLED = 4096;  // columns at a time, so that CTAs share one row, too
constexpr u32 NO_LOGIT = 0xff800000u;  // -inf

// -inf in the pages behind each row's own, by `threads` threads of each CTA.
INLINE void fill_behind(const int* positions, float* out, long long out_stride, int first_row, int high, int columns,
                        int thread, int threads) {
  const int parts = (columns + FILLED - 1) / FILLED;
  for (int part = blockIdx.x; part < (high - first_row) * parts; part += gridDim.x) {
    const int row = part / parts, start = part % parts * FILLED;
    const int begin = max(start, (positions[first_row + row] + PAGE) / PAGE * PAGE);
    float* to = out + row * out_stride;
    for (int column = begin + 4 * thread; column < min(start + FILLED, columns); column += 4 * threads)
      write_global4(to + column, NO_LOGIT, NO_LOGIT, NO_LOGIT, NO_LOGIT);
  }
}
