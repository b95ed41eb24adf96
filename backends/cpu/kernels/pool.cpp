// Threads that walk a list of launches together, one barrier behind each. Knows no kernel.

#include "team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() __asm__ volatile("yield")
#endif

namespace {

const int64_t LINE = 64;
const uint32_t MOST_THREADS = 255;
const int64_t SPINS = 2000;       // of a barrier before the processor is given to others: some 50 us
const int64_t LATE_NS = 500000;   // a thread that comes later had lost its processor
const int64_t MOST_LATE = 2;      // in a step; from then on the caller goes on alone
const int64_t ALONE = 32;         // steps that it takes alone behind such a step, twice as many
const int64_t MOST_ALONE = 1024;  // behind the next one, up to so many
const int64_t IDLE_SPINS = 2000;  // of a worker between two steps before it sleeps

struct Record {
  void (*kernel)(void **, Team *);
  void **params;
};

struct alignas(64) Flag {
  uint32_t value;
};

struct Pool;

struct Worker {
  Pool *pool;
  int thread;
  pthread_t handle;
};

struct Pool {
  int most;     // threads, the caller's among them
  Flag *passed; // barriers that each thread has reached since the pool began
  uint32_t begun; // barriers that were reached before this step
  uint32_t leave_at; // the barrier behind which the caller goes on alone: the last one that had any
  int64_t alone;        // steps that the caller still takes alone
  int64_t next_alone;
  Worker *workers;
  char *scratch;
  int64_t scratch_bytes;
  int64_t *counters;
  int64_t num_counters;
  Record *records;
  int64_t count;
  // The number of the step, and in the last byte its threads. Workers wait for it: one that is none
  // of the step's threads reads nothing else of it, as the next may begin meanwhile.
  alignas(64) uint32_t step;
  alignas(64) uint32_t ends;
  alignas(64) uint32_t sleepers;
};

void sleep_on(uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake(uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0);
}

int64_t now_ns() {
  timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000 + at.tv_nsec;
}

// Every thread has reached the barrier `at`. One that comes out late may find the next step begun:
// it looks at nothing of it but the numbers of barriers, which only rise. Nanoseconds that the
// longest was waited for beyond the first spins.
int64_t meet(Flag *passed, const Team &team, uint32_t at) {
  int64_t began = 0;
  __atomic_store_n(&passed[team.thread].value, at, __ATOMIC_RELEASE);
  for (int other = 0; other < team.threads; other++) {
    for (int64_t i = 0;
         (int32_t)(__atomic_load_n(&passed[other].value, __ATOMIC_ACQUIRE) - at) < 0; i++) {
      if (i < SPINS) {
        PAUSE();
        continue;
      }
      if (!began)
        began = now_ns();
      sched_yield();
    }
  }
  return began ? now_ns() - began : 0;
}

// All threads walk the list, until the caller has waited too long too often: others have the
// processors then, and it goes on alone, now and for the next steps.
void walk(Pool *pool, int thread, int threads) {
  Team team = {thread, threads, nullptr, pool->scratch + thread * pool->scratch_bytes};
  Flag *passed = pool->passed;
  Record *records = pool->records;
  int64_t count = pool->count, late = 0, *counters = pool->counters;
  uint32_t begun = pool->begun;
  bool began_together = threads > 1;
  for (int64_t i = 0; i < count; i++) {
    team.counter = counters + i * (LINE / 8);
    int64_t began = thread || threads == 1 ? 0 : now_ns();
    records[i].kernel(records[i].params, &team);
    if (threads == 1)
      continue;
    uint32_t at = begun + i + 1;
    if (!thread && late == MOST_LATE) // said before the barrier: behind it all others know
      __atomic_store_n(&pool->leave_at, at, __ATOMIC_RELAXED);
    int64_t own = thread ? 0 : now_ns() - began;
    int64_t waited = meet(passed, team, at);
    if (__atomic_load_n(&pool->leave_at, __ATOMIC_RELAXED) == at) {
      if (thread)
        return;
      team.threads = threads = 1;
    }
    // Chunks are alike: a wait longer than all that the caller did is no chunk.
    late += !thread && waited > LATE_NS && waited > own;
  }
  if (thread || !began_together)
    return;
  if (late >= MOST_LATE) {
    pool->alone = pool->next_alone;
    pool->next_alone = smaller(2 * pool->next_alone, MOST_ALONE);
  } else if (!late) {
    pool->next_alone = larger(pool->next_alone / 2, ALONE);
  }
}

void *work(void *given) {
  Worker *worker = (Worker *)given;
  Pool *pool = worker->pool;
  uint32_t seen = 0;
  for (;;) {
    for (int64_t i = 0; __atomic_load_n(&pool->step, __ATOMIC_ACQUIRE) == seen; i++) {
      if (i < IDLE_SPINS) {
        PAUSE();
        continue;
      }
      __atomic_fetch_add(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
      if (__atomic_load_n(&pool->step, __ATOMIC_SEQ_CST) == seen)
        sleep_on(&pool->step, seen);
      __atomic_fetch_sub(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    }
    seen = __atomic_load_n(&pool->step, __ATOMIC_ACQUIRE);
    if (__atomic_load_n(&pool->ends, __ATOMIC_ACQUIRE))
      return nullptr;
    int threads = seen & MOST_THREADS;
    if (worker->thread < threads)
      walk(pool, worker->thread, threads);
  }
}

void *aligned(int64_t bytes) {
  void *found = nullptr;
  return posix_memalign(&found, LINE, bytes ? bytes : LINE) ? nullptr : found;
}

} // namespace

extern "C" {

// A pool of up to `most` threads, the caller's among them; null where the system gives none.
Pool *pool_create(int most) {
  Pool *pool = (Pool *)aligned(sizeof(Pool));
  if (!pool)
    return nullptr;
  memset((void *)pool, 0, sizeof(Pool));
  pool->most = most < (int)MOST_THREADS ? most : (int)MOST_THREADS;
  most = pool->most;
  pool->passed = (Flag *)aligned(most * sizeof(Flag));
  pool->workers = (Worker *)calloc(most, sizeof(Worker));
  if (!pool->passed || !pool->workers)
    return nullptr;
  memset((void *)pool->passed, 0, most * sizeof(Flag));
  pool->next_alone = ALONE;
  for (int t = 1; t < most; t++) {
    pool->workers[t] = {pool, t, 0};
    if (pthread_create(&pool->workers[t].handle, nullptr, work, &pool->workers[t]))
      return nullptr;
  }
  return pool;
}

// End its threads. Nothing runs.
void pool_destroy(Pool *pool) {
  __atomic_store_n(&pool->ends, 1, __ATOMIC_RELEASE);
  __atomic_fetch_add(&pool->step, MOST_THREADS + 1, __ATOMIC_SEQ_CST);
  wake(&pool->step);
  for (int t = 1; t < pool->most; t++)
    pthread_join(pool->workers[t].handle, nullptr);
  free(pool->passed);
  free(pool->workers);
  free(pool->scratch);
  free(pool->counters);
  free(pool);
}

// Room for steps of `launches` whose threads take up to `scratch` bytes each; 1 where there is none.
int pool_reserve(Pool *pool, int64_t launches, int64_t scratch) {
  scratch = parts(scratch, LINE) * LINE;
  if (launches > pool->num_counters) {
    free(pool->counters);
    pool->counters = (int64_t *)aligned(launches * LINE);
    pool->num_counters = pool->counters ? launches : 0;
  }
  if (scratch > pool->scratch_bytes) {
    free(pool->scratch);
    pool->scratch = (char *)aligned(scratch * pool->most);
    pool->scratch_bytes = pool->scratch ? scratch : 0;
  }
  return !pool->counters || (scratch && !pool->scratch);
}

// Run the launches in order on so many threads. One caller at a time, no more than `reserve` said.
void run_step(Pool *pool, Record *records, int64_t count, int threads) {
  threads = threads < pool->most ? threads : pool->most;
  if (threads > 1 && pool->alone) {
    pool->alone--;
    threads = 1;
  }
  for (int64_t i = 0; i < count; i++)
    pool->counters[i * (LINE / 8)] = 0;
  pool->records = records;
  pool->count = count;
  if (threads > 1) {
    pool->begun = pool->passed[0].value;
    uint32_t number = (pool->step & ~MOST_THREADS) + MOST_THREADS + 1;
    __atomic_store_n(&pool->step, number | threads, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST))
      wake(&pool->step);
  }
  walk(pool, 0, threads);
}
}
