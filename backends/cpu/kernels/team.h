// What every kernel is given: its parameters, and the team of threads that runs it.
//
// A kernel cuts its work into chunks whose results do not depend on one another, and each thread
// takes the next one until none is left: so one that loses its processor holds up no more than its
// own chunk, and numbers are the same on any number of threads.

#pragma once

#include <stdint.h>

typedef float v8 __attribute__((vector_size(32), aligned(4)));
typedef int32_t i8 __attribute__((vector_size(32), aligned(4)));
typedef uint32_t u8x __attribute__((vector_size(32), aligned(4)));

struct Team {
  int thread;       // of this call
  int threads;      // that make the call
  int64_t *counter; // of this launch: the next chunk
  char *scratch;    // this thread's, aligned to 64 bytes, as large as the launch asked for
};

// The next chunk, at least `chunks` where none is left.
static inline int64_t take(Team *team) {
  return __atomic_fetch_add(team->counter, 1, __ATOMIC_RELAXED);
}

// Parameters lie one behind the other, each the address of its value.
template <typename T> static inline T *pointer(void **params, int index) {
  return *(T **)params[index];
}
static inline int64_t integer(void **params, int index) { return *(int32_t *)params[index]; }
static inline float number(void **params, int index) { return *(float *)params[index]; }

// Rows that a step really has, of the `most` that the program is compiled for.
static inline int64_t real_rows(void **params, int index, int64_t most) {
  int64_t rows = *pointer<int32_t>(params, index);
  return rows < most ? rows : most;
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
