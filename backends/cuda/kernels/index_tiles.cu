// Which rows the indexer scores together, and which pages of which tile each CTA takes (index_logits.cu):
// once a step, by one CTA. The pages of all tiles, one tile behind another, are cut into CTAS equal parts,
// so that requests of any lengths end together.
//
// Macros: ROWS (of a tile), CTAS.
#include "index_logits/work_list.h"

constexpr int THREADS = 1024, WARPS = THREADS / 32;
constexpr unsigned EVERY = 0xffffffffu;

// The sum up to and with this thread's; `total` of all. `sums` has WARPS ints.
__device__ __forceinline__ int scan(int mine, int* sums, int& total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int d = 1; d < 32; d *= 2) {
    const int other = __shfl_up_sync(EVERY, mine, d);
    if (lane >= d) mine += other;
  }
  __syncthreads();  // all have read what the call before left
  if (lane == 31) sums[warp] = mine;
  __syncthreads();
  total = 0;
  for (int w = 0; w < WARPS; w++) {
    if (w < warp) mine += sums[w];
    total += sums[w];
  }
  return mine;
}

// The last of `count` that begins at `place` or before; they begin in order, the first one there.
__device__ __forceinline__ int last_from(int place, const int* begins, int count) {
  int low = 0, high = count;  // begins[low] <= place < begins[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (begins[middle] <= place) low = middle;
    else high = middle;
  }
  return low;
}

// Grid: 1; 1024 threads, at most as many requests.
extern "C" __global__ void __launch_bounds__(THREADS) index_tiles(
    const int* __restrict__ positions,  // [rows of the step]; of rows without a token negative
    const int* __restrict__ q_starts,   // [reqs + 1]
    const int* __restrict__ real_rows,  // [1]
    RowTile* tiles,                     // as many as rows first_row .. + rows can make
    Start* starts,                      // [CTAS + 1]; the last: the number of tiles
    int first_row, int rows, int reqs, int most_pages) {
  __shared__ int first_tile[THREADS], first_page[THREADS], sums[WARPS];
  const int thread = threadIdx.x, high = min(first_row + rows, *real_rows);
  int count, total = 0;
  {
    int own = 0;
    if (thread < reqs)
      own = (max(min(q_starts[thread + 1], high) - max(q_starts[thread], first_row), 0) + ROWS - 1) / ROWS;
    first_tile[thread] = scan(own, sums, count) - own;
  }
  __syncthreads();
  for (int start = 0; start < count; start += THREADS) {
    const int t = start + thread;
    RowTile tile{0, 0, 0, 0};
    if (t < count) {
      tile.request = last_from(t, first_tile, reqs);
      tile.row = max(q_starts[tile.request], first_row) + (t - first_tile[tile.request]) * ROWS;
      tile.rows = min(ROWS, min(q_starts[tile.request + 1], high) - tile.row);
      int last = -1;
      for (int i = 0; i < tile.rows; i++) last = max(last, positions[tile.row + i]);
      tile.pages = min((last + PAGE) / PAGE, most_pages);
      tiles[t] = tile;
    }
    int together;
    scan(tile.pages, sums, together);
    total += together;
  }
  // Part c begins at page c * total / CTAS of all. A thread finds the tile of its part: one tile alone
  // has all parts, and a thread that wrote them all took longer than everything else here.
  int before = 0;
  for (int start = 0; start < count; start += THREADS) {
    const int t = start + thread, pages = t < count ? tiles[t].pages : 0;
    int together;
    first_page[thread] = before + scan(pages, sums, together) - pages;
    __syncthreads();
    for (int c = thread; c < CTAS; c += THREADS) {
      const int cut = (int)((long long)c * total / CTAS);
      if (cut < before || cut >= before + together) continue;
      const int at = last_from(cut, first_page, THREADS), begin = first_page[at];
      starts[c] = Start{start + at, cut - begin};
    }
    before += together;
  }
  for (int c = total ? CTAS + thread : thread; c <= CTAS; c += THREADS) starts[c] = Start{count, 0};
}
