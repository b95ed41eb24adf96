// The library's own interface, as programs that are built with it see it.

#pragma once

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct Pool;

struct Record {
  void *kernel;
  void **params;
};

struct List {
  Record *records;
  int64_t count;
};

extern "C" {
Pool *pool_create(int most);
void pool_destroy(Pool *pool);
int pool_reserve(Pool *pool, int64_t launches, int64_t scratch);
void run_step(Pool *pool, List *list, int threads);
}

inline void require(bool held, const char *what) {
  if (!held) {
    fprintf(stderr, "%s\n", what);
    exit(3);
  }
}

inline void *kernel_of(const char *symbol) {
  void *found = dlsym(RTLD_DEFAULT, symbol);
  require(found, symbol);
  return found;
}
