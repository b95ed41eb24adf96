// All of the CPU's kernels for one instruction set: one file, so that a compiler sees what it can
// join.

#include "attention.cpp"
#include "experts.cpp"
#include "indexer.cpp"
#include "products.cpp"
#include "rows.cpp"
#include "step.cpp"
