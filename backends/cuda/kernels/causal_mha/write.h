// A warpgroup's results through shared memory, in the place of its queries, to the step's rows.
#pragma once
#include "products.h"

INLINE void write_rows(const Output& o, __nv_bfloat16* out, long long row_stride, int rows, u32 shared, int group,
                       int thread) {
  const int warp = thread / 32, lane = thread % 32, matrix = lane >> 3;
  const u32 to = shared + QUERY + group * GROUP_ROWS * 128;
  const int row = warp * 16 + (matrix & 1) * 8 + (lane & 7);
#pragma unroll
  for (int j = 0; j < VALUE / 8; j += 2) {
    u32 r[4];
#pragma unroll
    for (int i = 0; i < 4; i++) r[i] = pack_bf16(o[4 * j + 2 * i], o[4 * j + 2 * i + 1]);
    store_matrices(to + j / 8 * QUERY_BOX + swizzled(row, j % 8 + (matrix >> 1)), r);
  }
  named_barrier(OF_GROUP + group, GROUP);
  constexpr int CHUNKS = VALUE / 8;  // of 16 bytes a row
#pragma unroll
  for (int i = 0; i < GROUP_ROWS * CHUNKS / GROUP; i++) {
    const int at = i * (GROUP / CHUNKS) + thread / CHUNKS, chunk = thread % CHUNKS;
    const uint4 x = load4(to + chunk / 8 * QUERY_BOX + swizzled(at, chunk % 8));
    if (at < rows) ((uint4*)(out + at * row_stride))[chunk] = x;
  }
  fence_async();  // what is read here comes before the queries that the copy engine puts there
}
