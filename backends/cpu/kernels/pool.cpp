// Threads that walk a list of launches together. Knows no kernel.
//
// Each goes on to the next launch when all chunks of the one before are done; nobody waits for a
// thread that holds none. So a worker may come late, or be found in a step that is over: all that
// it reads then is still there, and it takes no chunk of another step than its own.

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
const int64_t SPINS = 2000;      // for a chunk before the processor is given to others: some 50 us
const int64_t IDLE_SPINS = 4000; // of a worker between two steps before it sleeps

struct Record {
  void (*kernel)(void **, Team *);
  void **params;
};

struct List {
  Record *records;
  int64_t count;
};

struct Pool;

struct Worker {
  Pool *pool;
  int thread;
  pthread_t handle;
};

struct Pool {
  int most; // threads, the caller's among them
  Worker *workers;
  char *scratch;
  int64_t scratch_bytes;
  Progress *progress; // of each launch of a list
  int64_t num_progress;
  uint32_t number; // of the step
  List *list;
  alignas(64) uint64_t at; // the step and the launch that the caller has come to
  // Changes with every step, and has its threads in the last byte: what workers wait for.
  alignas(64) uint32_t signal;
  alignas(64) uint32_t ends;
  alignas(64) uint32_t inside; // workers that may read of a step
  alignas(64) uint32_t sleepers;
};

void sleep_on(uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake(uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0);
}

// Give the processor to others for a moment. Who sleeps keeps its claim to it, so that it comes back
// before a loop that never waits; who yields stands behind such a loop for a whole time slice.
void nap() {
  const timespec SHORT = {0, 20000};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &SHORT, nullptr);
}

// What a launch's `taken` becomes when it is over: no chunk is left, whatever number of rows a thread
// that comes late reads, which may be the next step's.
uint64_t closed(uint32_t step) { return (uint64_t)step << 32 | 0xffffffffu; }

// Leave no chunk of a launch to whoever comes later, unless it is another step's by now.
void close(const Team &team) {
  uint64_t *taken = &team.progress->taken, seen = __atomic_load_n(taken, __ATOMIC_ACQUIRE);
  while (seen >> 32 == team.step && seen != closed(team.step) &&
         !__atomic_compare_exchange_n(taken, &seen, closed(team.step), true, __ATOMIC_ACQ_REL,
                                      __ATOMIC_ACQUIRE))
    continue;
}

// Until all chunks of a launch are done; false where its step is over.
bool wait_for(const Team &team) {
  uint64_t all = (uint64_t)team.step << 32 | team.chunks;
  for (int64_t i = 0;; i++) {
    uint64_t done = __atomic_load_n(&team.progress->done, __ATOMIC_ACQUIRE);
    if (done == all ||
        __atomic_load_n(&team.progress->taken, __ATOMIC_ACQUIRE) == closed(team.step))
      return true;
    if (done >> 32 != team.step)
      return false;
    if (i < SPINS)
      PAUSE();
    else
      nap();
  }
}

// Take part in a step from the launch on to which the caller has come.
void walk(Pool *pool, int thread) {
  uint64_t at = __atomic_load_n(&pool->at, __ATOMIC_ACQUIRE);
  List *list = __atomic_load_n(&pool->list, __ATOMIC_ACQUIRE); // perhaps of the step behind `at`'s
  char *scratch = __atomic_load_n(&pool->scratch, __ATOMIC_SEQ_CST);
  Progress *progress = __atomic_load_n(&pool->progress, __ATOMIC_SEQ_CST);
  int64_t scratch_bytes = __atomic_load_n(&pool->scratch_bytes, __ATOMIC_RELAXED);
  Team team = {(uint32_t)(at >> 32), 0, false, nullptr, scratch + thread * scratch_bytes};
  for (int64_t i = (uint32_t)at; i < list->count; i++) {
    team.progress = progress + i;
    list->records[i].kernel(list->records[i].params, &team);
    if (!wait_for(team))
      return;
    close(team); // before the next, which may write how many rows this one reads
    if (thread)
      continue;
    // An exchange, as who called may write the next number of rows only behind what was closed.
    __atomic_exchange_n(&pool->at, (uint64_t)team.step << 32 | (uint64_t)(i + 1), __ATOMIC_ACQ_REL);
  }
}

void *work(void *given) {
  Worker *worker = (Worker *)given;
  Pool *pool = worker->pool;
  uint32_t seen = 0;
  for (;;) {
    for (int64_t i = 0; __atomic_load_n(&pool->signal, __ATOMIC_ACQUIRE) == seen; i++) {
      if (i < IDLE_SPINS) {
        PAUSE();
        continue;
      }
      __atomic_fetch_add(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
      if (__atomic_load_n(&pool->signal, __ATOMIC_SEQ_CST) == seen)
        sleep_on(&pool->signal, seen);
      __atomic_fetch_sub(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    }
    seen = __atomic_load_n(&pool->signal, __ATOMIC_ACQUIRE);
    if (__atomic_load_n(&pool->ends, __ATOMIC_ACQUIRE))
      return nullptr;
    if (worker->thread < (int)(seen & MOST_THREADS)) {
      __atomic_fetch_add(&pool->inside, 1, __ATOMIC_SEQ_CST);
      walk(pool, worker->thread);
      __atomic_fetch_sub(&pool->inside, 1, __ATOMIC_SEQ_CST);
    }
  }
}

void *aligned(int64_t bytes) {
  void *found = nullptr;
  return posix_memalign(&found, LINE, bytes ? bytes : LINE) ? nullptr : found;
}

// Until no worker is found in a step that is over.
void wait_for_workers(Pool *pool) {
  while (__atomic_load_n(&pool->inside, __ATOMIC_SEQ_CST))
    sched_yield();
}

// A new signal for so many threads.
void tell(Pool *pool, uint32_t threads) {
  uint32_t next = (pool->signal & ~MOST_THREADS) + MOST_THREADS + 1;
  __atomic_store_n(&pool->signal, next | threads, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST))
    wake(&pool->signal);
}

} // namespace

extern "C" {

// Whether this process may use tiles (AMX): Linux makes room for their registers in each thread of
// those that ask.
int allow_tiles() {
#if defined(__x86_64__)
  const long ASK = 0x1023, TILE_DATA = 18; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
#else
  return 0;
#endif
}

// End its threads. Nothing runs.
void pool_destroy(Pool *pool) {
  __atomic_store_n(&pool->ends, 1, __ATOMIC_RELEASE);
  tell(pool, 0);
  for (int t = 1; pool->workers && t < pool->most; t++)
    if (pool->workers[t].pool)
      pthread_join(pool->workers[t].handle, nullptr);
  free(pool->workers);
  free(pool->scratch);
  free(pool->progress);
  free(pool);
}

// A pool of up to `most` threads, the caller's among them; null where the system gives none.
Pool *pool_create(int most) {
  Pool *pool = (Pool *)aligned(sizeof(Pool));
  if (!pool)
    return nullptr;
  memset((void *)pool, 0, sizeof(Pool));
  pool->most = most < (int)MOST_THREADS ? most : (int)MOST_THREADS;
  pool->workers = (Worker *)calloc(pool->most, sizeof(Worker));
  for (int t = 1; pool->workers && t < pool->most; t++) {
    Worker *worker = &pool->workers[t];
    *worker = {pool, t, 0};
    if (pthread_create(&worker->handle, nullptr, work, worker)) {
      worker->pool = nullptr;
      pool_destroy(pool);
      return nullptr;
    }
  }
  if (pool->workers)
    return pool;
  free(pool);
  return nullptr;
}

// Room for lists of `launches` whose threads take up to `scratch` bytes each; 1 where there is none.
int pool_reserve(Pool *pool, int64_t launches, int64_t scratch) {
  scratch = parts(scratch, LINE) * LINE;
  if (launches > pool->num_progress) {
    Progress *more = (Progress *)aligned(launches * (int64_t)sizeof(Progress));
    if (!more)
      return 1;
    memset((void *)more, 0, launches * sizeof(Progress));
    Progress *before = __atomic_exchange_n(&pool->progress, more, __ATOMIC_SEQ_CST);
    wait_for_workers(pool);
    free(before);
    pool->num_progress = launches;
  }
  if (scratch > pool->scratch_bytes) {
    char *more = (char *)aligned(scratch * pool->most);
    if (!more)
      return 1;
    char *before = __atomic_exchange_n(&pool->scratch, more, __ATOMIC_SEQ_CST);
    wait_for_workers(pool);
    free(before);
    __atomic_store_n(&pool->scratch_bytes, scratch, __ATOMIC_RELAXED);
  }
  return 0;
}

// Run a list's launches in order on so many threads. One caller at a time; no more than `reserve`
// said.
void run_step(Pool *pool, List *list, int threads) {
  uint64_t none = (uint64_t)++pool->number << 32;
  for (int64_t i = 0; i < list->count; i++) {
    __atomic_store_n(&pool->progress[i].taken, none, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->progress[i].done, none, __ATOMIC_RELAXED);
  }
  __atomic_store_n(&pool->list, list, __ATOMIC_RELEASE);
  __atomic_store_n(&pool->at, none, __ATOMIC_RELEASE);
  threads = threads < pool->most ? threads : pool->most;
  if (threads > 1)
    tell(pool, (uint32_t)threads);
  walk(pool, 0);
}
}
