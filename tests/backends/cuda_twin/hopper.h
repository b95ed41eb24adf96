// Instructions of sm_90a on the CPU, in place of those in kernels/hopper/: ldmatrix, stmatrix, mbarriers,
// bulk copies and wgmma as PTX defines them, over fibers (fibers.h).
// Copies and products are done at once, and warps lose turns: who waits for whom is checked, memory order is not.
#pragma once
#include "fibers.h"

#include <cmath>
#include <cstdint>
#define HOPPER_PTX
#define HOPPER_WGMMA
#define HOPPER_TILE_PRODUCTS
#define HOPPER_TENSOR_COPY
#define HOPPER_ROW_COPY
#define HOPPER_LATENT_PRODUCT
#define INLINE inline
#define __align__(n)
#undef __shared__
#define __shared__

typedef uint32_t u32;
typedef uint64_t u64;
struct uint2 { u32 x, y; };
struct uint4 { u32 x, y, z, w; };
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
constexpr u32 EVERY_LANE = 0xffffffffu;

// ---- shared memory: of CTA r at addresses from r << 20 on, with 1024 bytes in front
constexpr u32 SHARED_BASE = 1024;
inline std::vector<std::vector<char>> shared_memories;
inline u32 shared_address(const void*) { return ((u32)twin::current->cta << 20) + SHARED_BASE; }
inline u32 in_rank(u32 address, u32 rank) { return (address & 0xFFFFF) | rank << 20; }
inline char* at(u32 address, u32 bytes) {
  auto& memory = shared_memories.at(address >> 20);
  const u32 offset = (address & 0xFFFFF) - SHARED_BASE;
  if (offset + bytes > memory.size() || address % bytes) twin::fail("bad address %x", address);
  return memory.data() + offset;
}
template <class T> T read(u32 from) { T x; std::memcpy(&x, at(from, sizeof(T)), sizeof(T)); return x; }
template <class T> void write(u32 to, T x) { std::memcpy(at(to, sizeof(T)), &x, sizeof(T)); }
inline void store(u32 to, float x) { write(to, x); }
inline void store2(u32 to, float x, float y) { write(to, x), write(to + 4, y); }
inline void store4(u32 to, u32 a, u32 b, u32 c, u32 d) { write(to, a), write(to + 4, b), write(to + 8, c), write(to + 12, d); }
inline void store_word(u32 to, u32 x) { write(to, x); }
inline u32 load_word(u32 from) { return read<u32>(from); }
inline void or_word(u32 to, u32 x) { write(to, read<u32>(to) | x); }
inline float load(u32 from) { return read<float>(from); }
inline void load2(u32 from, float& x, float& y) { x = load(from), y = load(from + 4); }
inline uint4 load4(u32 from) { return read<uint4>(from); }
inline float load_remote(u32 from) { return load(from); }
inline void load_remote4(u32 from, float* x) { for (int i = 0; i < 4; i++) x[i] = load(from + 4 * i); }
inline void fence_async() {}

// ---- warps
struct Words { u32 of[32][4]; };
inline std::vector<Words> warp_words;
inline int lane_id() { return twin::current->thread & 31; }
inline int warp_index() { return (twin::current->cta * twin::threads + twin::current->thread) / 32; }
inline Words gather(const u32* mine, int count) {  // every lane's words, to every lane
  Words& words = warp_words[warp_index()];
  for (int i = 0; i < count; i++) words.of[lane_id()][i] = mine[i];
  twin::wait(twin::warp().barrier, 32);
  const Words all = words;
  twin::wait(twin::warp().barrier, 32);
  return all;
}
inline void __syncwarp() { u32 x = 0; gather(&x, 1); }
inline u32 __ballot_sync(u32, bool mine) {
  u32 x = mine, bits = 0;
  const Words all = gather(&x, 1);
  for (int l = 0; l < 32; l++) bits |= all.of[l][0] << l;
  return bits;
}
inline bool __any_sync(u32, bool mine) { return __ballot_sync(EVERY_LANE, mine) != 0; }
inline float __shfl_xor_sync(u32, float mine, int d) {
  u32 x;
  std::memcpy(&x, &mine, 4);
  const Words all = gather(&x, 1);
  float other;
  std::memcpy(&other, &all.of[lane_id() ^ d][0], 4);
  return other;
}
inline int same_in_lanes(int x) { return x; }
inline u32 swap_lanes(u32 mine, int d) { return gather(&mine, 1).of[lane_id() ^ d][0]; }
inline void load_matrices(u32* r, u32 from) {
  const Words rows = gather(&from, 1);
  const int g = lane_id() >> 2, q = lane_id() & 3;
  for (int i = 0; i < 4; i++) r[i] = read<u32>(rows.of[i * 8 + g][0] + q * 4);
}
inline void load_transposed(u32* r, u32 from) {
  const Words rows = gather(&from, 1);
  const int g = lane_id() >> 2, q = lane_id() & 3;
  for (int i = 0; i < 4; i++) {
    const u32 low = read<uint16_t>(rows.of[i * 8 + 2 * q][0] + g * 2);
    r[i] = low | (u32)read<uint16_t>(rows.of[i * 8 + 2 * q + 1][0] + g * 2) << 16;
  }
}
inline void store_transposed(u32 to, const u32* r) {
  const Words rows = gather(&to, 1);
  const int g = lane_id() >> 2, q = lane_id() & 3;
  for (int i = 0; i < 4; i++) {
    write(rows.of[i * 8 + 2 * q][0] + g * 2, (uint16_t)r[i]);
    write(rows.of[i * 8 + 2 * q + 1][0] + g * 2, (uint16_t)(r[i] >> 16));
  }
  __syncwarp();
}
inline void store_matrices(u32 to, const u32* r) {
  const Words rows = gather(&to, 1);
  const int g = lane_id() >> 2, q = lane_id() & 3;
  for (int i = 0; i < 4; i++) write(rows.of[i * 8 + g][0] + q * 4, r[i]);
  __syncwarp();
}

// ---- numbers
inline float __uint_as_float(u32 x) { float y; std::memcpy(&y, &x, 4); return y; }
inline u32 __byte_perm(u32 x, u32 y, u32 selector) {
  const u64 bytes = (u64)y << 32 | x;
  u32 d = 0;
  for (int i = 0; i < 4; i++) d |= (u32)(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return d;
}
inline u32 bits_f16(float x) { _Float16 h = (_Float16)x; uint16_t b; std::memcpy(&b, &h, 2); return b; }
inline float of_f16(u32 bits) { uint16_t b = (uint16_t)bits; _Float16 h; std::memcpy(&h, &b, 2); return (float)h; }
inline u32 bits_bf16(float x) {
  const u32 b = __float_as_uint(x);
  return x != x ? 0x7fff : (b + 0x7fff + (b >> 16 & 1)) >> 16;
}
inline float of_bf16(u32 bits) { return __uint_as_float(bits << 16); }
inline float of_e4m3(u32 b) {
  const float sign = b & 128 ? -1.f : 1.f, mantissa = b & 7;
  const int exponent = b >> 3 & 15;
  if ((b & 127) == 127) return NAN;
  return sign * (exponent ? std::ldexp(1 + mantissa / 8, exponent - 7) : std::ldexp(mantissa / 8, -6));
}
inline u32 pack_f16(float low, float high) { return bits_f16(low) | bits_f16(high) << 16; }
inline u32 pack_bf16(float low, float high) { return bits_bf16(low) | bits_bf16(high) << 16; }
inline float low_bf16(u32 pair) { return of_bf16(pair & 0xffff); }
inline float high_bf16(u32 pair) { return of_bf16(pair >> 16); }
inline float low_f16(u32 pair) { return of_f16(pair & 0xffff); }
inline float high_f16(u32 pair) { return of_f16(pair >> 16); }
inline void widen_e4m3(u32 four, u32& low, u32& high) {
  low = pack_f16(of_e4m3(four & 255), of_e4m3(four >> 8 & 255));
  high = pack_f16(of_e4m3(four >> 16 & 255), of_e4m3(four >> 24));
}
inline u32 multiply_f16(u32 a, u32 b) {
  return pack_f16(of_f16(a & 0xffff) * of_f16(b & 0xffff), of_f16(a >> 16) * of_f16(b >> 16));
}
inline float exp2_fast(float x) { return std::exp2(x); }
inline float as_bf16(float x) { return of_bf16(bits_bf16(x)); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline u32 bits_e4m3(float x) {  // the nearest of all, of two the even one
  u32 best = 0;
  for (u32 b = 1; b < 127; b++) {
    const float off = std::fabs(std::fabs(x) - of_e4m3(b)), least = std::fabs(std::fabs(x) - of_e4m3(best));
    if (off < least || (off == least && b % 2 == 0)) best = b;
  }
  return x != x ? 127 : best | (std::signbit(x) ? 128 : 0);
}
inline u32 pack_e4m3(float low, float high) { return bits_e4m3(low) | bits_e4m3(high) << 8; }
inline u32 widen_e4m3_pair(u32 two) { return pack_f16(of_e4m3(two & 255), of_e4m3(two >> 8 & 255)); }
struct __nv_bfloat16 { uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) { return of_bf16(x.bits); }
inline __nv_bfloat16 __float2bfloat16(float x) { return {(uint16_t)bits_bf16(x)}; }

// ---- memory of the device
inline float read_global(const float* from) { return *from; }
inline u32 read_global_word(const u32* from) { return *from; }
inline float max_or_nan(float x, float y) { return x != x || y != y ? x + y : x > y ? x : y; }
inline void write_words(void* to, const u32* words, int count) {
  if ((u64)to % (4 * count)) twin::fail("write off its border");
  std::memcpy(to, words, 4 * count);
}
inline void write_global2(void* to, u32 a, u32 b) { const u32 words[] = {a, b}; write_words(to, words, 2); }
inline void write_global4(void* to, u32 a, u32 b, u32 c, u32 d) { const u32 words[] = {a, b, c, d}; write_words(to, words, 4); }

// ---- barriers, of the current CTA by their numbers and addresses
struct Named { twin::Barrier barrier; bool any = false, result = false; int left = 0; };
struct Phases { int arrivals, pending, expected = 0; u32 phase = 0; };
inline std::vector<std::vector<Named>> named;
inline std::vector<std::vector<std::pair<u32, Phases>>> phases;
using twin::yield;
// Turns that a warp loses, mostly few and up to 240, by its number and what it did: no other may rely
// on its pace.
inline void lose_turns() {
  const u32 drawn = (twin::warp().barrier.generation * 31 + warp_index()) * 2654435761u >> 27;
  for (u32 i = 0; i < drawn * drawn / 4; i++) yield();
}
inline void named_barrier(int id, int threads) {
  twin::wait(named[twin::current->cta][id].barrier, threads);
  lose_turns();
}
inline void arrive_named(int id, int threads) {
  twin::Barrier& b = named[twin::current->cta][id].barrier;
  if (++b.arrived == threads) b.arrived = 0, b.generation++;
}
inline bool any_in_barrier(int id, int threads, bool mine) {
  Named& b = named[twin::current->cta][id];
  b.any |= mine;
  twin::wait(b.barrier, threads);
  const bool result = b.any;
  if (++b.left == threads) b.left = 0, b.any = false;
  twin::wait(b.barrier, threads);
  return result;
}
inline int meeting = 256;  // threads of a CTA in a cluster's barrier: others may have left
inline void cluster_barrier() { twin::wait(twin::cluster, meeting * twin::ctas); }
inline Phases& barrier_at(u32 address) {
  for (auto& [place, b] : phases[address >> 20]) if (place == address) return b;
  twin::fail("no barrier at %x", address);
}
inline void complete(Phases& b) {
  if (b.pending == 0 && b.expected == 0) b.phase++, b.pending = b.arrivals;
}
inline void init_barrier(u32 address, int arrivals) {
  at(address, 8);
  phases[address >> 20].push_back({address, {arrivals, arrivals}});
}
inline void publish_barriers() {}
// Whoever waited goes on before the one who arrived: what is read behind an arrival, others replaced.
inline void arrive(u32 address) {
  Phases& b = barrier_at(address);
  b.pending--;
  complete(b);
  yield();
}
inline void arrive_expecting(u32 address, int bytes) {
  Phases& b = barrier_at(address);
  b.expected += bytes, b.pending--;
  complete(b);
}
inline void wait_for(u32 address, int parity) {
  twin::wait_until([&] { return (barrier_at(address).phase & 1) != (u32)parity; });
}
inline void wait_for_room(u32 address, int parity) { wait_for(address, parity); }
inline void copy_bulk(u32 to, const void* from, int bytes, u32 barrier) {
  if (to % 16 || (u64)from % 16 || bytes % 16) twin::fail("copy off its border");
  at(to + bytes - 16, 16);
  std::memcpy(at(to, 16), from, bytes);
  Phases& b = barrier_at(barrier);
  b.expected -= bytes;
  complete(b);
}
inline void copy_chunk(u32 to, const void* from, bool is_there) {
  if ((u64)from % 16) twin::fail("copy off its border");
  if (is_there) std::memcpy(at(to, 16), from, 16);
  else std::memset(at(to, 16), 0, 16);
}
inline void arrive_when_copied(u32 barrier) { arrive(barrier); }
inline void wait_copied() {}
// A tensor map as the tests write it: bf16, axes (x, y, z) with x dense, 128-byte swizzle.
struct alignas(64) TensorMap {
  char* base;
  int extents[3], box[3];
  long long strides[2];  // bytes, of y and z
};
template <class Move> void each_chunk(const TensorMap& map, int x, int y, int z, u32 box, Move move) {
  if (map.box[0] != 64 || map.box[1] != 1 || box % 1024 || (u64)map.base % 16) twin::fail("no such box");
  for (int row = 0; row < map.box[2]; row++)
    for (int chunk = 0; chunk < 8; chunk++) {
      const bool inside = x + chunk * 8 < map.extents[0] && y < map.extents[1] && z + row < map.extents[2];
      char* place = map.base + (x + chunk * 8) * 2 + y * map.strides[0] + (z + row) * map.strides[1];
      move(at(box + row * 128 + (chunk ^ row % 8) * 16, 16), inside ? place : nullptr);
    }
}
inline void load_box(u32 to, const TensorMap& map, int x, int y, int z, u32 barrier) {
  each_chunk(map, x, y, z, to, [](char* here, const char* there) {
    if (there) std::memcpy(here, there, 16);
    else std::memset(here, 0, 16);
  });
  Phases& b = barrier_at(barrier);
  b.expected -= map.box[2] * 128;
  complete(b);
}
inline void store_box(const TensorMap& map, int x, int y, int z, u32 from) {
  each_chunk(map, x, y, z, from, [](const char* here, char* there) {
    if (there) std::memcpy(there, here, 16);
  });
}
inline void commit_stores() {}
inline void wait_stored() {}
template <int COUNT> void give_registers() { lose_turns(); }  // roles begin in any order
template <int COUNT> void take_registers() { lose_turns(); }

// ---- products: B by rows of N, 128-byte swizzle, as a descriptor says
inline void products_begin() {}
inline void products_commit() {}
template <int GROUPS> void products_wait() {}
template <int N, bool IS_BF16> struct Product {
  static float number(u32 bits) { return IS_BF16 ? of_bf16(bits) : of_f16(bits); }
  static void add(float (&d)[N / 2], const u32* a, u64 operand, int keep) {
    const Words all = gather(a, 4);
    const int g = lane_id() >> 2, q = lane_id() & 3;
    const u32 groups = (operand >> 32 & 0x3FFF) << 4, start = (operand & 0x3FFF) << 4;
    if (operand >> 62 != 1) twin::fail("no 128-byte swizzle");
    for (int j = 0; j < N / 8; j++)
      for (int e = 0; e < 2; e++) {
        const u32 n = 8 * j + 2 * q + e;
        float first = keep ? d[4 * j + e] : 0.f, second = keep ? d[4 * j + 2 + e] : 0.f;
        for (int k = 0; k < 16; k++) {
          u32 address = start + n / 8 * groups + n % 8 * 128 + k * 2;
          address ^= (address >> 7 & 7) << 4;
          const float b = number(read<uint16_t>(address | (u32)twin::current->cta << 20));
          const u32* row = all.of[g * 4 + k % 8 / 2];
          const int shift = k % 2 * 16;
          first += number(row[k / 8 * 2] >> shift & 0xffff) * b;
          second += number(row[k / 8 * 2 + 1] >> shift & 0xffff) * b;
        }
        d[4 * j + e] = first, d[4 * j + 2 + e] = second;
      }
  }
};

// ---- products with a side of 64 rows or of 16 in shared memory, by tiles as tensor maps fill them
template <int COUNT> void settle(float (&)[COUNT]) {}
inline u32 operand_start(u64 operand) {
  if (operand >> 62 != 1) twin::fail("no 128-byte swizzle");
  return (operand & 0x3FFF) << 4;
}
inline float element(u32 address) {
  address ^= (address >> 7 & 7) << 4;
  return of_bf16(read<uint16_t>(address | (u32)twin::current->cta << 20));
}
// 8 k of row `row` of an operand by rows: swizzled rows of 128 bytes, or rows of 16 bytes.
inline float row_element(u64 operand, int row, int k) {
  const u32 of_8 = (operand >> 32 & 0x3FFF) << 4, of_8_k = (operand >> 16 & 0x3FFF) << 4;
  if (operand >> 62 == 1) return element(operand_start(operand) + row / 8 * of_8 + row % 8 * 128 + k * 2);
  const u32 address = ((operand & 0x3FFF) << 4) + row / 8 * of_8 + k / 8 * of_8_k + row % 8 * 16 + k % 8 * 2;
  return of_bf16(read<uint16_t>(address | (u32)twin::current->cta << 20));
}
template <int N> struct TileProduct {
  static void add(float (&d)[N / 2], u64 a, u64 b, int keep) {
    const int warp = twin::current->thread / 32 % 4, g = lane_id() >> 2, q = lane_id() & 3;
    float mine[2][16];
    for (int r = 0; r < 2; r++)
      for (int k = 0; k < 16; k++) mine[r][k] = row_element(a, warp * 16 + g + 8 * r, k);
    for (int j = 0; j < N / 8; j++)
      for (int e = 0; e < 2; e++) {
        float sums[2] = {keep ? d[4 * j + e] : 0.f, keep ? d[4 * j + 2 + e] : 0.f};
        for (int k = 0; k < 16; k++) {
          const float x = row_element(b, 8 * j + 2 * q + e, k);
          sums[0] += mine[0][k] * x, sums[1] += mine[1][k] * x;
        }
        d[4 * j + e] = sums[0], d[4 * j + 2 + e] = sums[1];
      }
  }
};
// B as value_operand says: 16 rows of 64 N each, dense.
inline float value_element(u64 b, int n, int k) {
  const u32 of_64 = (b >> 16 & 0x3FFF) << 4, of_8 = (b >> 32 & 0x3FFF) << 4;
  return element(operand_start(b) + n / 64 * of_64 + k / 8 * of_8 + k % 8 * 128 + n % 64 * 2);
}
inline void add_latent_product(float (&d)[64], u64 a, u64 b) {
  const int warp = twin::current->thread / 32 % 4, g = lane_id() >> 2, q = lane_id() & 3;
  for (int k = 0; k < 16; k++) {
    const float first = row_element(a, warp * 16 + g, k), second = row_element(a, warp * 16 + g + 8, k);
    for (int i = 0; i < 64; i++) d[i] += (i & 2 ? second : first) * value_element(b, i / 4 * 8 + 2 * q + i % 2, k);
  }
}
template <int N> struct ValueProduct {
  static void add(float (&d)[N / 2], const u32* a, u64 b) {
    const Words all = gather(a, 4);
    const int g = lane_id() >> 2, q = lane_id() & 3;
    for (int j = 0; j < N / 8; j++)
      for (int e = 0; e < 2; e++) {
        const int n = 8 * j + 2 * q + e;
        for (int k = 0; k < 16; k++) {
          const float x = value_element(b, n, k);
          const u32* words = all.of[g * 4 + k % 8 / 2];
          d[4 * j + e] += of_bf16(words[k / 8 * 2] >> k % 2 * 16 & 0xffff) * x;
          d[4 * j + 2 + e] += of_bf16(words[k / 8 * 2 + 1] >> k % 2 * 16 & 0xffff) * x;
        }
      }
  }
};
