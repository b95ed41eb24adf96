// Runs recorded launches, each over memory of its own that ends where the launch's did, and writes
// what that holds then. `replay LAUNCHES OUT SUFFIX THREADS`: formats in `launch_file.py`.

#include "harness.h"

#include <string>
#include <vector>

namespace {

FILE *in, *out;

int64_t number() {
  int64_t found;
  require(fread(&found, sizeof found, 1, in) == 1, "the file of launches ends early");
  return found;
}

struct Memory {
  char *bytes;
  int64_t size;
};

void one(Pool *pool, const char *suffix, int threads) {
  std::string symbol((size_t)number(), ' ');
  require(fread(&symbol[0], 1, symbol.size(), in) == symbol.size(), "a name ends early");
  int64_t scratch = number();
  std::vector<Memory> held((size_t)number());
  for (Memory &each : held) {
    each.size = number();
    each.bytes = (char *)malloc((size_t)each.size); // apart, so that what is behind it is watched
    require(fread(each.bytes, 1, (size_t)each.size, in) == (size_t)each.size, "memory ends early");
  }
  std::vector<uint64_t> values((size_t)number());
  std::vector<void *> params(values.size());
  for (size_t i = 0; i < values.size(); i++) {
    int64_t memory = number(), value = number(); // which memory, or none
    values[i] = memory < 0 ? (uint64_t)value : (uint64_t)(held[(size_t)memory].bytes + value);
    params[i] = &values[i];
  }
  Record record = {kernel_of((symbol + suffix).c_str()), params.data()};
  List list = {&record, 1};
  require(!pool_reserve(pool, 1, scratch), "no room");
  fprintf(stderr, "%s\n", symbol.c_str()); // what is found wrong is this one's
  run_step(pool, &list, threads);
  for (Memory &each : held)
    require(fwrite(each.bytes, 1, (size_t)each.size, out) == (size_t)each.size, "no disk");
  // A thread that comes late still reads of the list: as in the library, that lives as long as the
  // pool, and a pool as long as its launch.
  pool_destroy(pool);
  for (Memory &each : held)
    free(each.bytes);
}

} // namespace

int main(int count, char **words) {
  require(count == 5, "replay LAUNCHES OUT SUFFIX THREADS");
  in = fopen(words[1], "rb");
  out = fopen(words[2], "wb");
  require(in && out, "no file");
  int threads = atoi(words[4]);
  for (int64_t left = number(); left > 0; left--)
    one(pool_create(threads), words[3], threads);
  require(!fclose(out), "no disk");
}
