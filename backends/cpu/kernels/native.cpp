// All of the CPU's kernels for one instruction set: one file, so that a compiler sees what it can
// join.

#include "adjust.cpp"
#include "attention.cpp"
#include "expanded_attention.cpp"
#include "experts.cpp"
#include "heads.cpp"
#include "indexer.cpp"
#include "indexer_fp8.cpp"
#include "lookup.cpp"
#include "nucleus.cpp"
#include "products.cpp"
#include "quantise.cpp"
#include "rope.cpp"
#include "rows.cpp"
#include "step.cpp"
