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

// One request's rows of a cache. Of a page that the cache does not have it reads page 0: whatever a
// table holds, nothing else is read.
template <typename T> struct Cached {
  const T *cache;
  const int32_t *pages;
  int64_t page_tokens;
  int64_t width;
  int64_t num_pages;
  const T *operator[](int64_t position) const {
    uint32_t at = (uint32_t)position, tokens = (uint32_t)page_tokens; // a short division
    int64_t page = pages[at / tokens];
    return cache + ((is_of(page, num_pages) ? page : 0) * page_tokens + at % tokens) * width;
  }
  // Of those from a position on that lie one behind the other.
  int64_t in_a_row(int64_t position) const {
    return page_tokens - (uint32_t)position % (uint32_t)page_tokens;
  }
};
