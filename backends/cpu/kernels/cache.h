// Where a row of the step finds its request, and a position its row of the paged cache.

#pragma once

#include "team.h"

// The request of a row: q_starts [B + 1] rises, and the row lies before the last of it.
static inline int64_t request_of(const int32_t *q_starts, int64_t requests, int64_t row) {
  int64_t b = 0;
  while (b + 1 < requests && q_starts[b + 1] <= row)
    b++;
  return b;
}

// One request's rows of a cache in f32.
struct Cached {
  const float *cache;
  const int32_t *pages;
  int64_t page_tokens;
  int64_t width;
  const float *operator[](int64_t position) const {
    return cache + (pages[position / page_tokens] * page_tokens + position % page_tokens) * width;
  }
};
