// The sparse MLA kernel on the CPU, a cluster at a time, as a shared library for the tests.
#include "hopper.h"

#include MLA_SOURCE

static struct Given {
  const float* query;
  const __nv_bfloat16* rope;
  const uint8_t* cache;
  const int *selection, *positions, *q_starts, *page_table, *num_rows;
  __nv_bfloat16* out;
  long long selection_stride, rope_row_stride, rope_head_stride, page_bytes, page_table_stride;
  int rows, heads, keys, reqs, splits;
  float scale;
} given;

static void one(int) {
  const Given& x = given;
  MLA_SYMBOL(x.query, x.rope, x.cache, x.selection, x.positions, x.q_starts, x.page_table, x.num_rows,
             x.out, x.selection_stride, x.rope_row_stride, x.rope_head_stride, x.page_bytes,
             x.page_table_stride, x.rows, x.heads, x.keys, x.reqs, x.splits, x.scale);
}

alignas(1024) uint8_t memory[1];  // the kernel's extern array; addresses are the twin's own

// Why it failed, nullptr where it did not.
extern "C" const char* attend(const Given* inputs) {
  given = *inputs;
  const int threads = MLA_THREADS;
  meeting = threads - 32 * LOAD_WARPS;
  for (int row = 0; row < given.rows; row++)
    for (int block = 0; block * HEADS < given.heads; block++) {
      shared_memories.assign(given.splits, std::vector<char>(SHARED_BYTES, (char)0xff));
      warp_words.assign(given.splits * threads / 32, {});
      named.assign(given.splits, std::vector<Named>(16));
      phases.assign(given.splits, {});
      blockIdx.y = block, blockIdx.z = row;
      if (const char* why = twin::run(given.splits, threads, nullptr, 0, one)) return why;
    }
  return nullptr;
}
