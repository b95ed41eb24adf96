// Which query tiles a step has, and where the context of each request lies in the workspace: once a
// step, by one CTA. Tiles that see most keys come first, so that CTAs which draw one after another end
// together (causal_mha.cu).
//
// Macros: MAX_REQS, MAX_TILES.
#include "causal_mha/tile_list.h"

constexpr int THREADS = 1024, WARPS = THREADS / 32;
constexpr unsigned EVERY = 0xffffffffu;

// Of the positions of rows first .. last - 1 the highest and the lowest that is none of a row without
// a token (-1, where there is none other).
__device__ __forceinline__ void extremes(const int* positions, int first, int last, int lane, int& high, int& low) {
  unsigned highest = 0, lowest = ~0u;  // positions and one; of rows without a token 0
  for (int row = first + lane; row < last; row += 32) {
    const int position = positions[row];
    if (position < 0) continue;
    highest = max(highest, (unsigned)position + 1u);
    lowest = min(lowest, (unsigned)position);
  }
  high = (int)__reduce_max_sync(EVERY, highest) - 1;
  low = high < 0 ? -1 : (int)__reduce_min_sync(EVERY, lowest);
}

__device__ __forceinline__ int scan(int mine, int lane) {  // the sum up to and with this lane's
  for (int d = 1; d < 32; d *= 2) {
    const int other = __shfl_up_sync(EVERY, mine, d);
    if (lane >= d) mine += other;
  }
  return mine;
}

// Grid: 1; 1024 threads.
extern "C" __global__ void __launch_bounds__(THREADS) causal_mha_tiles(
    const int* __restrict__ positions,  // [rows]; of rows without a token negative
    const int* __restrict__ q_starts,   // [reqs + 1]
    int* __restrict__ contexts,         // [reqs + 1]: where each context begins; the last: how many rows
    int* __restrict__ list,             // [1 + MAX_TILES][ENTRY]
    int reqs) {
  __shared__ int length[MAX_REQS], context[MAX_REQS + 1], first_tile[MAX_REQS + 1];
  __shared__ int reach[MAX_TILES], least[MAX_TILES], owner[MAX_TILES];
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  for (int b = warp; b < reqs; b += WARPS) {
    int high, low;
    extremes(positions, q_starts[b], q_starts[b + 1], lane, high, low);
    if (lane == 0) length[b] = high + 1;
  }
  __syncthreads();
  if (warp == 0) {
    int rows_before = 0, tiles_before = 0;
    for (int start = 0; start < reqs; start += 32) {
      const int b = start + lane;
      const int rows = b < reqs ? length[b] : 0;
      const int new_rows = b < reqs ? q_starts[b + 1] - q_starts[b] : 0;
      const int tiles = (new_rows + TILE_ROWS - 1) / TILE_ROWS;
      const int rows_to = scan(rows, lane), tiles_to = scan(tiles, lane);
      if (b < reqs) {
        context[b] = rows_before + rows_to - rows;
        first_tile[b] = tiles_before + tiles_to - tiles;
      }
      const int last = min(31, reqs - 1 - start);
      rows_before += __shfl_sync(EVERY, rows_to, last);
      tiles_before += __shfl_sync(EVERY, tiles_to, last);
    }
    if (lane == 0) context[reqs] = rows_before, first_tile[reqs] = tiles_before;
  }
  __syncthreads();
  const int count = min(first_tile[reqs], MAX_TILES);
  for (int b = thread; b <= reqs; b += THREADS) contexts[b] = context[b];
  for (int b = warp; b < reqs; b += WARPS) {
    for (int t = first_tile[b]; t < min(first_tile[b + 1], MAX_TILES); t++) {
      const int row = q_starts[b] + (t - first_tile[b]) * TILE_ROWS;
      int high, low;
      extremes(positions, row, min(row + TILE_ROWS, q_starts[b + 1]), lane, high, low);
      if (lane == 0) reach[t] = high + 1, least[t] = low, owner[t] = b;
    }
  }
  __syncthreads();
  if (thread == 0) list[0] = count;
  for (int t = thread; t < count; t += THREADS) {
    int place = 1;
    for (int other = 0; other < count; other++)
      place += reach[other] > reach[t] || (reach[other] == reach[t] && other < t);
    const int b = owner[t], row = q_starts[b] + (t - first_tile[b]) * TILE_ROWS;
    int* entry = list + place * ENTRY;
    entry[0] = row, entry[1] = min(TILE_ROWS, q_starts[b + 1] - row);
    entry[2] = context[b], entry[3] = length[b];
    entry[4] = reach[t], entry[5] = least[t];
  }
}
