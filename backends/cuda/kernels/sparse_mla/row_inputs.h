// What a query row is given: its heads' queries and its keys. For kernels with macros PAGE and DENSE;
// computes nothing.
#pragma once
#include "hopper/latent_rows.h"

struct Query {
  const float* latent;        // [heads, rows, LATENT]
  const __nv_bfloat16* rope;  // strides below, in elements
  long long rope_row_stride, rope_head_stride;
  int heads, rows;

  INLINE void read(float (&x)[16], int row, int head, int part) const {
    if (head >= heads) {
#pragma unroll
      for (int i = 0; i < 16; i++) x[i] = 0.f;
    } else if (part < LATENT / 16) {
      const float4* from = (const float4*)(latent + ((long long)head * rows + row) * LATENT + part * 16);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float4 four = from[i];
        x[4 * i] = four.x, x[4 * i + 1] = four.y, x[4 * i + 2] = four.z, x[4 * i + 3] = four.w;
      }
    } else {
      const __nv_bfloat16* from = rope + row * rope_row_stride + head * rope_head_stride + (part * 16 - LATENT);
#pragma unroll
      for (int i = 0; i < 16; i++) x[i] = __bfloat162float(from[i]);
    }
  }
};

// The keys of one query row: `count` places of its selection (or positions 0 .. count - 1), its
// request's pages, and the cache.
struct Keys {
  const int* selection;
  const int* pages;
  const uint8_t* cache;
  long long page_bytes;
  int count;

  // The position at a place of the selection, -1 where there is none.
  INLINE int position(int place) const {
    if (place >= count) return -1;
    if constexpr (DENSE) return place;
    else return selection[place];
  }
  INLINE int page(int position) const { return position < 0 ? 0 : pages[position / PAGE]; }
};
