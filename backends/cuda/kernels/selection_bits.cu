// The selected positions of each row as bits, in the order of masked_mha/bits.h: zeros, then a bit for each
// position. Once a layer; at 2,048 rows 17 MB of positions and 2 MB of bits for contexts of 8,192.
//
// Entries may come in any order, and more than once; what is negative, or behind the bits, is none.
// Macros: SHARED_BYTES (the words of a row).
#include "hopper/ptx.h"
#include "masked_mha/bits.h"

constexpr int THREADS = 128;

// Grid: a CTA a row; those behind the step's rows leave at once.
extern "C" __global__ void __launch_bounds__(THREADS) selection_bits(
    const int* __restrict__ selection,  // [rows, keys]
    const int* __restrict__ num_rows,   // [1]: the step's rows
    u32* __restrict__ bits,             // [rows, words]
    long long selection_stride, int keys, int words) {
  extern __shared__ __align__(16) uint8_t memory[];
  const u32 shared = shared_address(memory);
  const int thread = threadIdx.x, row = blockIdx.x;
  if (row >= *num_rows) return;
  for (int i = thread; i < words; i += THREADS) store_word(shared + 4 * i, 0);
  __syncthreads();
  const int* selected = selection + row * selection_stride;
  const u32 behind = (u32)words / BIT_WORDS * BIT_KEYS;
  for (int i = thread; i < keys; i += THREADS) {
    const u32 key = (u32)selected[i];  // of what is negative behind all
    if (key < behind) or_word(shared + 4 * word_of(key), 1u << bit_of(key));
  }
  __syncthreads();
  for (int i = thread; i < words; i += THREADS) bits[(long long)row * words + i] = load_word(shared + 4 * i);
}
