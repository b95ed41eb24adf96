// All of the CPU's kernels as one library: one file, so that a compiler sees what it can join.

#include "attention.cpp"
#include "experts.cpp"
#include "indexer.cpp"
#include "pool.cpp"
#include "products.cpp"
#include "rows.cpp"
