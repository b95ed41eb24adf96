// 16 bytes from global to shared memory by each thread for itself, without registers. An mbarrier hears of
// it. Knows no kernel. The tests put another file in place of this one, too.
#ifndef HOPPER_ROW_COPY
#define HOPPER_ROW_COPY
#include "ptx.h"

// Zeros where it `is_there` not: then nothing is read.
INLINE void copy_chunk(u32 to, const void* from, bool is_there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(is_there ? 16 : 0)
               : "memory");
}
// This thread arrives once all that it began to copy is there; no more arrivals are to be expected for it.
INLINE void arrive_when_copied(u32 barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
// Before a thread leaves.
INLINE void wait_copied() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif
