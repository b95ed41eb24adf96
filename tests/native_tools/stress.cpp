// The pool by itself: lists of launches of which each reads what the one before wrote, on more
// threads than there are processors, so that some come late or into a step that is over; pools that
// end while their threads sleep, wait or work; room that grows between two steps.
// `stress SECONDS` ends with 0 where every number was right.

#include "harness.h"

#include <string.h>
#include <time.h>
#include <vector>

namespace {

const int ROWS = 37, WIDTH = 24;
uint32_t state = 1;

uint32_t any(uint32_t below) { // xorshift
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state % below;
}

// b = a + b, then a = a + b, and so on.
struct Chain {
  float a[ROWS * WIDTH], b[ROWS * WIDTH];
  float *first = a, *second = b;
  int32_t most = ROWS, width = WIDTH, real = ROWS, *rows = &real;
  void *odd[9] = {&first, &second, &second, &rows, &most, &width, &width, &width, &width};
  void *even[9] = {&first, &second, &first, &rows, &most, &width, &width, &width, &width};
  std::vector<Record> records;
  List list;

  explicit Chain(int length) {
    void *kernel = kernel_of("add_f32");
    for (int i = 0; i < length; i++)
      records.push_back({kernel, i % 2 ? even : odd});
    list = {records.data(), length};
  }

  void run(Pool *pool, int threads, int rows_now) {
    // As Python writes it: whole, while a thread of a step that is over may still read it.
    __atomic_store_n(&real, rows_now, __ATOMIC_RELAXED);
    for (int i = 0; i < ROWS * WIDTH; i++)
      a[i] = 1.0f, b[i] = 2.0f;
    run_step(pool, &list, threads);
    float one = 1.0f, other = 2.0f;
    for (size_t i = 0; i < records.size(); i++)
      (i % 2 ? one : other) = one + other;
    for (int i = 0; i < ROWS * WIDTH; i++) {
      bool real_row = i < rows_now * WIDTH;
      require(a[i] == (real_row ? one : 1.0f) && b[i] == (real_row ? other : 2.0f), "wrong sums");
    }
  }
};

} // namespace

int main(int count, char **words) {
  require(count == 2, "stress SECONDS");
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  for (int64_t end = now.tv_sec + atoi(words[1]); now.tv_sec < end;
       clock_gettime(CLOCK_MONOTONIC, &now)) {
    int most = 1 + (int)any(8);
    Pool *pool = pool_create(most);
    require(pool, "no threads");
    std::vector<Chain *> chains;
    for (uint32_t steps = any(60); steps > 0; steps--) {
      if (chains.empty() || !any(20)) { // longer ones too, while threads look for work
        chains.push_back(new Chain(1 + (int)any(30)));
        require(!pool_reserve(pool, chains.back()->list.count, any(100000)), "no room");
      }
      Chain *chain = chains[any((uint32_t)chains.size())];
      chain->run(pool, 1 + (int)any(9), any(4) ? ROWS : (int)any(ROWS));
      if (!any(30)) { // until they sleep
        timespec rest = {0, 2000000};
        nanosleep(&rest, nullptr);
      }
    }
    pool_destroy(pool);
    for (Chain *each : chains)
      delete each;
  }
}
