/* What kernels call that MLIR's tools compile for the CPU: strided copies, and f32 to bf16. */
#include <stdint.h>
#include <string.h>

typedef struct {
  int64_t rank;
  int64_t *described; /* allocated, aligned, offset, sizes, strides */
} Memref;

static char *first(const Memref *m, int64_t bytes) {
  return (char *)m->described[1] + m->described[2] * bytes;
}

void memrefCopy(int64_t bytes, Memref *from, Memref *to) {
  int64_t rank = from->rank, at[8] = {0};
  const int64_t *sizes = from->described + 3;
  const int64_t *step_from = sizes + rank, *step_to = to->described + 3 + rank;
  char *source = first(from, bytes), *target = first(to, bytes);
  for (int64_t axis = 0; axis < rank; axis++)
    if (sizes[axis] == 0)
      return;
  for (;;) {
    int64_t read = 0, write = 0, axis = rank - 1;
    for (int64_t i = 0; i < rank; i++) {
      read += at[i] * step_from[i];
      write += at[i] * step_to[i];
    }
    memcpy(target + write * bytes, source + read * bytes, bytes);
    while (axis >= 0 && ++at[axis] == sizes[axis])
      at[axis--] = 0;
    if (axis < 0)
      return;
  }
}

uint16_t __truncsfbf2(float x) { /* to nearest even; no NaN comes here */
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
