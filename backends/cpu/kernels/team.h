// What every kernel is given: its parameters, and the team of threads that runs it.
//
// A kernel cuts its work into chunks whose results do not depend on one another, and each thread
// takes the next one until none is left. A launch is over when its chunks are, whoever made them: a
// thread that has lost its processor holds up no more than the chunk that it holds, and numbers are
// the same on any number of threads.

#pragma once

#include <stdint.h>

// A kernel's symbol: one for each instruction set that the sources are compiled for.
#if defined(__AMX_BF16__)
#define KERNEL(name) name##_amx
#elif defined(__AVX512BF16__)
#define KERNEL(name) name##_avx512bf16
#elif defined(__AVX512F__)
#define KERNEL(name) name##_avx512
#else
#define KERNEL(name) name
#endif

// One that is a template's instance, by the types in its name.
#define KERNEL_OF(name, ...)                                                                       \
  extern "C" void KERNEL(name)(void **params, Team *team) { __VA_ARGS__(params, team); }

// How far a launch has come: in both words the number of the step above, and a count below.
struct alignas(64) Progress {
  uint64_t taken, done; // chunks
};

struct Team {
  uint32_t step;      // that this thread works on: it takes nothing of another
  uint32_t chunks;    // of the launch, once one was asked for
  bool holds;         // whether it has a chunk that is not done
  Progress *progress; // of the launch
  char *scratch;      // this thread's, aligned to 64 bytes, as large as the launch asked for
};

// The next of so many chunks, -1 where none is left; what this thread took before is done.
static inline int64_t take(Team *team, int64_t chunks) {
  team->chunks = (uint32_t)chunks;
  if (team->holds)
    __atomic_fetch_add(&team->progress->done, 1, __ATOMIC_RELEASE);
  team->holds = false;
  uint64_t seen = __atomic_load_n(&team->progress->taken, __ATOMIC_RELAXED);
  do {
    // A thread that comes late finds the next step here, which may even be the same launch.
    if (seen >> 32 != team->step || (uint32_t)seen >= chunks)
      return -1;
  } while (!__atomic_compare_exchange_n(&team->progress->taken, &seen, seen + 1, true,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  team->holds = true;
  return (int64_t)(uint32_t)seen;
}

// Parameters lie one behind the other, each the address of its value.
template <typename T> static inline T *pointer(void **params, int index) {
  return *(T **)params[index];
}
static inline int64_t integer(void **params, int index) { return *(int32_t *)params[index]; }
static inline float number(void **params, int index) { return *(float *)params[index]; }

// Rows that a step really has, of the `most` that the program is compiled for, whatever lies there.
// Read before a chunk is taken, so perhaps by a thread that comes late while the next step's number
// is written: it then takes nothing, as its launch was closed before (`pool.cpp`).
static inline int64_t real_rows(void **params, int index, int64_t most) {
  int64_t rows = __atomic_load_n(pointer<int32_t>(params, index), __ATOMIC_ACQUIRE);
  return rows < 0 ? 0 : rows < most ? rows : most;
}

// Whether what was read of memory is one of so many.
static inline bool is_of(int64_t value, int64_t count) { return 0 <= value && value < count; }

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
