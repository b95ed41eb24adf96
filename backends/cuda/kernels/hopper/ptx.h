// Instructions of sm_90a that C++ has no name for. Shared addresses are 32-bit. Knows no kernel.
// The tests put others that run on the CPU in place of this file (tests/backends/cuda_twin/).
#ifndef HOPPER_PTX
#define HOPPER_PTX
#include <cuda_bf16.h>
#include <stdint.h>

typedef uint32_t u32;
typedef uint64_t u64;
#define INLINE __device__ __forceinline__

constexpr u32 EVERY_LANE = 0xffffffffu;

// ---- shared memory
INLINE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
INLINE void store(u32 to, float x) { asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(x) : "memory"); }
INLINE void store2(u32 to, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1,%2};" ::"r"(to), "f"(x), "f"(y) : "memory");
}
INLINE void store4(u32 to, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
INLINE void store_word(u32 to, u32 x) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory"); }
INLINE u32 load_word(u32 from) {
  u32 x;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(from) : "memory");
  return x;
}
INLINE void or_word(u32 to, u32 x) { asm volatile("red.shared.or.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory"); }
INLINE float load(u32 from) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from));
  return x;
}
INLINE void load2(u32 from, float& x, float& y) {
  asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(x), "=f"(y) : "r"(from));
}
// Four 8x8 matrices of 16-bit elements; lane l names row l % 8 of matrix l / 8.
INLINE void load_matrices(u32* r, u32 from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from));
}
INLINE void load_transposed(u32* r, u32 from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from));
}
INLINE void store_transposed(u32 to, const u32* r) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(to),
               "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}
INLINE void store_matrices(u32 to, const u32* r) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(r[0]),
               "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}
INLINE uint4 load4(u32 from) {
  uint4 x;
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(from)
               : "memory");
  return x;
}
// What this thread wrote to shared memory, the copy engine and wgmma see from here on.
INLINE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- memory of the device; writes at borders of what is written
// Read here and not where it is used, of what no kernel under way writes.
INLINE float read_global(const float* from) {
  float x;
  asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(from));
  return x;
}
INLINE u32 read_global_word(const u32* from) {
  u32 x;
  asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(x) : "l"(from));
  return x;
}
INLINE void write_global2(void* to, u32 a, u32 b) {
  asm volatile("st.global.v2.b32 [%0], {%1,%2};" ::"l"(to), "r"(a), "r"(b) : "memory");
}
INLINE void write_global4(void* to, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

// ---- numbers
// fmaxf gives the other of a NaN and a number: what is out of range would come back as one.
INLINE float max_or_nan(float x, float y) {
  asm("max.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(y));
  return x;
}
// What is the same in all lanes, said so that the compiler keeps it, and all that follows, once a warp.
INLINE int same_in_lanes(int x) { return __shfl_sync(EVERY_LANE, x, 0); }
INLINE u32 swap_lanes(u32 mine, int distance) { return __shfl_xor_sync(EVERY_LANE, mine, distance); }
INLINE u32 pack_f16(float low, float high) {
  u32 d;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}
INLINE u32 pack_bf16(float low, float high) {
  u32 d;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}
INLINE float low_bf16(u32 pair) { return __uint_as_float(pair << 16); }
INLINE float high_bf16(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
// Four e4m3 as two pairs of f16, exactly.
INLINE void widen_e4m3(u32 four, u32& low, u32& high) {
  asm("{.reg .b16 l, h;\nmov.b32 {l, h}, %2;\ncvt.rn.f16x2.e4m3x2 %0, l;\ncvt.rn.f16x2.e4m3x2 %1, h;}"
      : "=r"(low), "=r"(high)
      : "r"(four));
}
INLINE float low_f16(u32 pair) {
  float x;
  asm("{.reg .b16 l, h;\nmov.b32 {l, h}, %1;\ncvt.f32.f16 %0, l;}" : "=f"(x) : "r"(pair));
  return x;
}
INLINE float high_f16(u32 pair) { return low_f16(pair >> 16); }
INLINE u32 multiply_f16(u32 a, u32 b) {
  u32 d;
  asm("mul.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
INLINE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Two e4m3 in the low bytes, to the nearest, at most 448; and two such bytes as f16, exactly.
INLINE u32 pack_e4m3(float low, float high) {
  uint16_t d;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(d) : "f"(high), "f"(low));
  return d;
}
INLINE u32 widen_e4m3_pair(u32 two) {
  u32 d;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(d) : "h"((uint16_t)two));
  return d;
}
INLINE float as_bf16(float x) { return low_bf16(pack_bf16(x, 0.f)); }

// ---- barriers
INLINE void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Counts towards a barrier in which others wait, and does not wait.
INLINE void arrive_named(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
INLINE bool any_in_barrier(int id, int threads, bool mine) {
  int any;
  asm volatile(
      "{\n.reg .pred p, q;\nsetp.ne.b32 p, %1, 0;\nbar.red.or.pred q, %2, %3, p;\nselp.b32 %0, 1, 0, q;\n}"
      : "=r"(any)
      : "r"((int)mine), "r"(id), "r"(threads)
      : "memory");
  return any;
}
INLINE void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// mbarriers: a phase ends when all have arrived and all expected bytes are there.
INLINE void init_barrier(u32 barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
INLINE void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  fence_async();
}
INLINE void arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
INLINE void arrive_expecting(u32 barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
INLINE void wait_for(u32 barrier, int parity) {
  asm volatile(
      "{\n.reg .pred p;\nWAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra DONE;\nbra WAIT;\nDONE:\n}" ::"r"(barrier), "r"(parity)
      : "memory");
}
// The same by what loads, for room. With BOUNDED_WAITS, for kernels on trial, it traps after seconds: if
// what computes hangs, there is no room.
INLINE void wait_for_room(u32 barrier, int parity) {
#ifdef BOUNDED_WAITS
  const long long began = clock64();
  for (u32 ended = 0; !ended;) {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}"
        : "=r"(ended)
        : "r"(barrier), "r"(parity)
        : "memory");
    if (clock64() - began > 4000000000LL) __trap();
  }
#else
  wait_for(barrier, parity);
#endif
}
// By the copy engine; the barrier hears of the bytes. 16-byte borders and lengths.
INLINE void copy_bulk(u32 to, const void* from, int bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// ---- registers of a warpgroup's threads
template <int COUNT> INLINE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> INLINE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// ---- the shared memory of another CTA of the cluster
INLINE u32 in_rank(u32 address, u32 rank) {
  u32 d;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(d) : "r"(address), "r"(rank));
  return d;
}
INLINE float load_remote(u32 from) {
  float x;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(x) : "r"(from));
  return x;
}
INLINE void load_remote4(u32 from, float* x) {
  asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(x[0]), "=f"(x[1]), "=f"(x[2]), "=f"(x[3])
               : "r"(from));
}
#endif
