// Runs one cluster of a CUDA kernel on the CPU: threads are fibers, barriers are switches.
// Checks a kernel's logic, not its races: fibers switch only at barriers and warp intrinsics.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __grid_constant__

struct float4 { float x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct Index { int x, y, z; };
inline Index threadIdx, blockIdx, gridDim;
using std::max;
using std::min;

namespace twin {
struct Barrier {
  int arrived = 0;
  unsigned generation = 0;
};
struct Warp {
  Barrier barrier;
  unsigned long long slot[32];
};
struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  int cta, thread;
  bool done = false;
};
inline ucontext_t scheduler;
inline std::vector<Fiber> fibers;
inline std::vector<Barrier> blocks;
inline std::vector<Warp> warps;
inline Barrier cluster;
inline Fiber* current;
inline int threads, ctas, first_block;  // blocks begin with that one
inline char* shared_memory;
inline long shared_bytes;
inline void (*body)(int cta);
inline int in_vain;  // turns of a round in which a fiber found nothing changed
inline char failure[64];

inline void yield() { swapcontext(&current->context, &scheduler); }
// Ends the launch, whose caller hears why: no fiber goes on.
[[noreturn]] inline void fail(const char* why, unsigned what = 0) {
  std::snprintf(failure, sizeof failure, why, what);
  for (;;) yield();
}
// Turns until `come` holds.
template <class Come> void wait_until(Come come) {
  for (bool again = false; !come(); again = true) {
    in_vain += again;
    yield();
  }
}
inline void wait(Barrier& barrier, int members) {
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == members) {
    barrier.arrived = 0;
    barrier.generation++;
    return;
  }
  wait_until([&] { return barrier.generation != generation; });
}
inline Warp& warp() { return warps[(current->cta * threads + current->thread) / 32]; }
template <class T, class F> T exchange(T value, F combine) {
  Warp& w = warp();
  w.slot[current->thread & 31] = value;
  wait(w.barrier, 32);
  T result = combine(w.slot, current->thread & 31);
  wait(w.barrier, 32);
  return result;
}
inline void enter() {
  body(current->cta);
  current->done = true;
  swapcontext(&current->context, &scheduler);
}
// Why it failed, nullptr where it did not. Where nobody did anything but wait for a round, nobody ever will.
inline const char* run(int num_ctas, int num_threads, char* memory, long bytes, void (*function)(int)) {
  threads = num_threads, ctas = num_ctas, shared_memory = memory, shared_bytes = bytes;
  body = function;
  fibers.assign(ctas * threads, {});
  blocks.assign(ctas, {});
  warps.assign(ctas * threads / 32, {});
  cluster = {};
  for (int i = 0; i < ctas * threads; i++) {
    Fiber& f = fibers[i];
    f.cta = i / threads, f.thread = i % threads;
    f.stack.resize(32768);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  failure[0] = 0;
  for (int alive = 1; alive;) {
    alive = in_vain = 0;
    for (Fiber& f : fibers) {
      if (f.done) continue;
      alive++;
      current = &f;
      threadIdx.x = f.thread, blockIdx.x = first_block + f.cta;
      swapcontext(&scheduler, &f.context);
      if (failure[0]) return failure;
    }
    if (alive && in_vain == alive) return "all threads that are left wait for what nobody does";
  }
  return nullptr;
}
}  // namespace twin

inline void __syncthreads() { twin::wait(twin::blocks[twin::current->cta], twin::threads); }
template <class T> T __shfl_up_sync(unsigned, T value, int distance) {
  return twin::exchange(value, [=](unsigned long long* slot, int lane) {
    return (T)slot[lane >= distance ? lane - distance : lane];
  });
}
template <class T> T __shfl_sync(unsigned, T value, int from) {
  return twin::exchange(value, [=](unsigned long long* slot, int) { return (T)slot[from]; });
}
inline unsigned __reduce_add_sync(unsigned, unsigned value) {
  return twin::exchange(value, [](unsigned long long* slot, int) {
    unsigned sum = 0;
    for (int i = 0; i < 32; i++) sum += (unsigned)slot[i];
    return sum;
  });
}
inline unsigned __reduce_min_sync(unsigned, unsigned value) {
  return twin::exchange(
      value, [](unsigned long long* s, int) { return (unsigned)*std::min_element(s, s + 32); });
}
inline unsigned __reduce_max_sync(unsigned, unsigned value) {
  return twin::exchange(
      value, [](unsigned long long* s, int) { return (unsigned)*std::max_element(s, s + 32); });
}
inline unsigned atomicAdd(unsigned* address, unsigned value) {
  unsigned old = *address;
  *address += value;
  return old;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline unsigned __float_as_uint(float f) {
  unsigned u;
  std::memcpy(&u, &f, 4);
  return u;
}

// Who arrives waits at once, so that only the wait counts.
inline void __cluster_barrier_arrive() {}
inline void __cluster_barrier_wait() { twin::wait(twin::cluster, twin::ctas * twin::threads); }
inline void* __cluster_map_shared_rank(const void* local, unsigned rank) {
  return (char*)local + ((int)rank - twin::current->cta) * twin::shared_bytes;
}
