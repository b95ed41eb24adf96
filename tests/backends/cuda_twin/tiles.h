// Tiles by tensor maps, multicast and fp8 products on the CPU, in place of kernels/hopper/tiles.h,
// page_copy.h, wgmma_fp8.h and wgmma_fp8_widths.h; the rest as hopper.h has it.
#pragma once
#include "hopper.h"

#include <array>
#define HOPPER_TILES
#define HOPPER_PAGE_COPY
#define HOPPER_WGMMA_FP8
#define HOPPER_WGMMA_FP8_WIDTHS

struct TileMap {
  const uint8_t* data;
  long long stride;  // bytes from row to row
  int rows, columns, box_rows, element_bytes;
};

inline u32 cluster_rank() { return twin::current->cta; }
inline void send_word(u32 to, u32 barrier, u32 rank, u32 x) {
  store_word(in_rank(to, rank), x);
  Phases& b = barrier_at(in_rank(barrier, rank));
  b.expected -= 4;
  complete(b);
}
inline void __threadfence() {}
inline void arrive_in(u32 barrier, u32 rank) { arrive(in_rank(barrier, rank)); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __expf(float x) { return std::exp(x); }
inline float __frcp_rn(float x) { return 1 / x; }

// 128 bytes of box_rows rows, zeros outside the matrix; 16 bytes of row r lie at their place ^ r % 8.
inline void load_tile_for(u32 to, const TileMap* map, u32 barrier, int column, int row, int ranks) {
  const int first = column * map->element_bytes, width = map->columns * map->element_bytes;
  if (to % 1024 || first % 16) twin::fail("tile off its border");
  for (int rank = 0; ranks >> rank; rank++) {
    if (!(ranks >> rank & 1)) continue;
    for (int r = 0; r < map->box_rows; r++)
      for (int c = 0; c < 128; c++) {
        const bool inside = row + r < map->rows && first + c < width;
        const uint8_t byte = inside ? map->data[(row + r) * map->stride + first + c] : 0;
        write(in_rank(to, rank) + r * 128 + (c ^ (r & 7) << 4), byte);
      }
    Phases& b = barrier_at(in_rank(barrier, rank));
    b.expected -= 128 * map->box_rows;
    complete(b);
  }
}
inline void load_tile(u32 to, const TileMap* map, u32 barrier, int column, int row) {
  load_tile_for(to, map, barrier, column, row, 1 << twin::current->cta);
}

// A page's rows lie one behind another; the map's own are pages.
inline void load_page(u32 to, const TileMap* map, u32 barrier, int column, int page) {
  if (page < 0 || page >= map->rows) twin::fail("no page %d", page);
  TileMap rows{map->data + page * map->stride, map->columns * map->element_bytes, map->box_rows, map->columns,
               map->box_rows, map->element_bytes};
  load_tile(to, &rows, barrier, column, 0);
}

inline u64 rows_operand(u32 address) { return (u64)((address & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)64 << 32 | (u64)1 << 62; }
// Products of the second CTA take longer: what the first must not rely on.
template <int COUNT> void hold(float (&)[COUNT]) {
  for (int i = 0; i < 8 * twin::current->cta; i++) yield();
}

// 32 numbers of a row of an operand, which a descriptor says.
inline std::array<float, 32> operand_row(u64 operand, int row) {
  static const std::array<float, 256> numbers = [] {
    std::array<float, 256> all;
    for (int b = 0; b < 256; b++) all[b] = of_e4m3(b);
    return all;
  }();
  const u32 groups = (operand >> 32 & 0x3FFF) << 4, start = (operand & 0x3FFF) << 4;
  if (operand >> 62 != 1) twin::fail("no 128-byte swizzle");
  u32 address = start + row / 8 * groups + row % 8 * 128;
  std::array<float, 32> found;
  for (int sixteen = 0; sixteen < 2; sixteen++) {
    const u32 from = (address + 16 * sixteen) ^ ((address >> 7 & 7) << 4);
    const char* bytes = at(from | (u32)twin::current->cta << 20, 16);
    for (int i = 0; i < 16; i++) found[16 * sixteen + i] = numbers[(uint8_t)bytes[i]];
  }
  return found;
}
template <int COUNT> void add_e4m3_product(float (&d)[COUNT], u64 a, u64 b, int keep) {
  const int lane = lane_id(), row = threadIdx.x / 32 % 4 * 16 + lane / 4;
  const auto first = operand_row(a, row), second = operand_row(a, row + 8);
  for (int i = 0; i < COUNT; i += 4)
    for (int e = 0; e < 2; e++) {
      const auto column = operand_row(b, i * 2 + 2 * (lane & 3) + e);
      float low = keep ? d[i + e] : 0.f, high = keep ? d[i + 2 + e] : 0.f;
      for (int k = 0; k < 32; k++) low += first[k] * column[k], high += second[k] * column[k];
      d[i + e] = low, d[i + 2 + e] = high;
    }
}
