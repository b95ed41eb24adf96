// The top-k kernel on the CPU, one cluster a row, as a shared library for the tests.
#include "fibers.h"
#include TOPK_SOURCE

static std::vector<Shared> memory(CLUSTER);
static const float* scores;
static int row, length, wanted, first_row, real_rows;
static int* chosen;

static void one(int cta) {
  topk_block(
      memory[cta], row * CLUSTER + cta, scores, length, length, wanted, first_row, &real_rows,
      chosen);
}

// Why it failed, nullptr where it did not.
extern "C" const char* topk(const float* rows, int count, int first, int real, int n, int k, int* out) {
  scores = rows, length = n, wanted = k, first_row = first, real_rows = real, chosen = out;
  for (row = 0; row < count; row++)
    if (const char* why = twin::run(CLUSTER, THREADS, (char*)memory.data(), sizeof(Shared), one)) return why;
  return nullptr;
}
