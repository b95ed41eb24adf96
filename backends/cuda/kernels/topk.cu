// Exact, deterministic top-k of each row of f32 scores: one cluster of CTAs a row, the row read once.
//
// The k largest scores as ascending positions, then -1. The lowest position wins among equal scores;
// -inf and NaN are never chosen. Scores become order-preserving u32 keys that stay in registers. The
// key range that holds the k-th largest shrinks by a 1024-bin histogram a pass, summed over the
// cluster through distributed shared memory, until one key value or whole bins remain; then every
// CTA writes its share at its offset. Any k and any row length up to the capacity
// CLUSTER * THREADS * 4 * VECTORS. Row 0 is the step's row first_row; rows of the step behind
// *real_rows select nothing.
//
// Macros: CLUSTER (CTAs a row), THREADS, VECTORS (groups of 4 keys a thread: 1, 2 or 4), ALIGNED
// (rows begin at 16 bytes). The core is plain C++ over warp intrinsics: the tests run it on the CPU.
// The cluster is used by the compiler's own functions: they are what cooperative_groups.h calls, and
// reading that header takes three times as long as compiling this kernel.
typedef unsigned u32;
typedef unsigned long long u64;

constexpr int BINS = 1024;
constexpr int WARPS = THREADS / 32;
constexpr int KEYS = 4 * VECTORS;        // keys of one thread
constexpr u32 EVERY_LANE = 0xffffffffu;

struct Shared {
  u32 counts[BINS];   // this CTA's histogram
  u32 totals[BINS];   // the cluster's histogram
  u32 range_low[CLUSTER], range_high[CLUSTER];   // each CTA's bounds of the k-th largest key
  u32 above[CLUSTER], equal[CLUSTER];            // each CTA's chosen and tied keys
  u32 warp_a[WARPS], warp_b[WARPS];
  u64 warp_wide[WARPS];
  u32 bin, bin_above, bin_count, population;
};

__device__ __forceinline__ void cluster_sync() {
  if constexpr (CLUSTER == 1) __syncthreads();
  else __cluster_barrier_arrive(), __cluster_barrier_wait();
}

template <class T> __device__ __forceinline__ T* peer(T* local, int rank) {
  if constexpr (CLUSTER == 1) return local;
  else return static_cast<T*>(__cluster_map_shared_rank(local, rank));
}

// Order-preserving key; 0 for scores that are never chosen. Adding 0 makes -0 equal +0.
__device__ __forceinline__ u32 key_of(float score) {
  if (!(score > -__builtin_huge_valf())) return 0u;
  u32 bits = __float_as_uint(score + 0.0f);
  return (bits >> 31) ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ u32 block_sum(u32 value, u32* warp_values, int warp, int lane) {
  value = __reduce_add_sync(EVERY_LANE, value);
  if (lane == 0) warp_values[warp] = value;
  __syncthreads();
  return __reduce_add_sync(EVERY_LANE, lane < WARPS ? warp_values[lane] : 0u);
}

// Keys lie at position begin + vector * THREADS * 4 + thread * 4 + j. Counts of the four possible
// vectors are packed in 16-bit fields (at most THREADS * 4 each), so one scan serves all of them.
// On return before[v] counts the marked keys of this CTA that stand before this thread's vector v.
__device__ __forceinline__ void positions_before(
    u32 marks, Shared& s, int warp, int lane, u32 (&before)[VECTORS]) {
  u64 mine = 0;
#pragma unroll
  for (int v = 0; v < VECTORS; v++) mine |= (u64)__popc((marks >> (4 * v)) & 15u) << (16 * v);
  u64 scan = mine;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    u64 other = __shfl_up_sync(EVERY_LANE, scan, d);
    if (lane >= d) scan += other;
  }
  __syncthreads();
  if (lane == 31) s.warp_wide[warp] = scan;
  __syncthreads();
  u64 earlier = scan - mine, whole = 0;
  for (int w = 0; w < WARPS; w++) {
    u64 count = s.warp_wide[w];
    if (w < warp) earlier += count;
    whole += count;
  }
  u32 vectors_before = 0;
#pragma unroll
  for (int v = 0; v < VECTORS; v++) {
    before[v] = vectors_before + (u32)((earlier >> (16 * v)) & 0xffffu);
    vectors_before += (u32)((whole >> (16 * v)) & 0xffffu);
  }
}

__device__ __forceinline__ void topk_row(
    Shared& s, int rank, const float* row, int length, int k, int* out) {
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int chunk = ((length + CLUSTER - 1) / CLUSTER + 3) & ~3;
  const int begin = rank * chunk, end = min(length, begin + chunk);

  u32 key[KEYS];
#pragma unroll
  for (int v = 0; v < VECTORS; v++) {
    const int i = begin + (v * THREADS + thread) * 4;
    float4 f = make_float4(0, 0, 0, 0);
    if (ALIGNED && i + 3 < end) {
      f = *reinterpret_cast<const float4*>(row + i);
    } else {
      if (i < end) f.x = row[i];
      if (i + 1 < end) f.y = row[i + 1];
      if (i + 2 < end) f.z = row[i + 2];
      if (i + 3 < end) f.w = row[i + 3];
    }
    key[4 * v] = i < end ? key_of(f.x) : 0u;
    key[4 * v + 1] = i + 1 < end ? key_of(f.y) : 0u;
    key[4 * v + 2] = i + 2 < end ? key_of(f.z) : 0u;
    key[4 * v + 3] = i + 3 < end ? key_of(f.w) : 0u;
  }
  for (int i = thread; i < BINS; i += THREADS) s.counts[i] = 0;

  // Bounds. Every thread holds one group of keys: with at least k groups, the least of the groups'
  // maxima is no larger than the k-th largest key.
  u32 most = 0;
#pragma unroll
  for (int e = 0; e < KEYS; e++) most = max(most, key[e]);
  u32 least = __reduce_min_sync(EVERY_LANE, most);
  most = __reduce_max_sync(EVERY_LANE, most);
  if (lane == 0) { s.warp_a[warp] = least; s.warp_b[warp] = most; }
  cluster_sync();   // also: every CTA of the cluster runs and has cleared its histograms
  if (warp == 0) {
    least = __reduce_min_sync(EVERY_LANE, lane < WARPS ? s.warp_a[lane] : ~0u);
    most = __reduce_max_sync(EVERY_LANE, lane < WARPS ? s.warp_b[lane] : 0u);
    if (lane < CLUSTER) {
      *peer(&s.range_low[rank], lane) = least;
      *peer(&s.range_high[rank], lane) = most;
    }
  }
  cluster_sync();
  u32 low = __reduce_min_sync(EVERY_LANE, lane < CLUSTER ? s.range_low[lane] : ~0u);
  u32 high = __reduce_max_sync(EVERY_LANE, lane < CLUSTER ? s.range_high[lane] : 0u);
  low = CLUSTER * THREADS >= k ? max(low, 1u) : 1u;
  high = max(high, low);

  // Shrink [low, high]. Invariant: keys above high are chosen, keys below low are not, and `need`
  // keys of the range are.
  u32 need = k;
  bool exact = false;   // all keys >= low are chosen
  for (;;) {
    const u32 span = high - low;
    const int shift = max(0, 22 - __clz(span | 1u));   // bins of 2^shift keys, at most BINS of them
#pragma unroll
    for (int e = 0; e < KEYS; e++) {
      const u32 d = key[e] - low;
      if (d <= span) atomicAdd(&s.counts[d >> shift], 1u);
    }
    cluster_sync();
    if constexpr (CLUSTER > 1) {   // this CTA sums its share of the bins and gives it to all
      constexpr int SHARE = BINS / CLUSTER;
      for (int i = thread; i < SHARE; i += THREADS) {
        u32 sum = 0;
        for (int r = 0; r < CLUSTER; r++) sum += *peer(&s.counts[rank * SHARE + i], r);
        for (int r = 0; r < CLUSTER; r++) *peer(&s.totals[rank * SHARE + i], r) = sum;
      }
      cluster_sync();
    }
    const u32* totals = CLUSTER > 1 ? s.totals : s.counts;

    // Highest bins first: thread t looks at BINS / THREADS bins (or the first BINS threads at one).
    constexpr int EACH = BINS >= THREADS ? BINS / THREADS : 1;
    u32 count[EACH], sum = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int b = thread * EACH + i;
      count[i] = b < BINS ? totals[BINS - 1 - b] : 0u;
      sum += count[i];
    }
    u32 scan = sum;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const u32 other = __shfl_up_sync(EVERY_LANE, scan, d);
      if (lane >= d) scan += other;
    }
    if (lane == 31) s.warp_a[warp] = scan;
    __syncthreads();
    const u32 warp_count = lane < WARPS ? s.warp_a[lane] : 0u;
    const u32 earlier = __reduce_add_sync(EVERY_LANE, lane < warp ? warp_count : 0u);
    const u32 population = __reduce_add_sync(EVERY_LANE, warp_count);
    if (population <= need) { exact = true; break; }   // fewer keys than asked for
    u32 above = earlier + scan - sum;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      if (above < need && above + count[i] >= need) {
        s.bin = BINS - 1 - (thread * EACH + i);
        s.bin_above = above;
        s.bin_count = count[i];
      }
      above += count[i];
    }
    __syncthreads();
    const u32 bin_count = s.bin_count;
    need -= s.bin_above;
    low += s.bin << shift;
    const u32 bin_end = low + ((1u << shift) - 1u);
    if (bin_end < high && bin_end >= low) high = bin_end;
    if (need == bin_count) { exact = true; break; }
    if (low == high) break;   // ties: `need` of the keys that equal low
    for (int i = thread; i < BINS; i += THREADS) s.counts[i] = 0;   // every reader is past it
    __syncthreads();
  }

  u32 chosen = 0, tied = 0;   // bit e: key e
#pragma unroll
  for (int e = 0; e < KEYS; e++) {
    if (exact ? key[e] >= low : key[e] > high) chosen |= 1u << e;
    else if (!exact && key[e] == low) tied |= 1u << e;
  }
  __syncthreads();
  const u32 my_above = block_sum(__popc(chosen), s.warp_a, warp, lane);
  const u32 my_equal = block_sum(__popc(tied), s.warp_b, warp, lane);
  if (warp == 0 && lane < CLUSTER) {
    *peer(&s.above[rank], lane) = my_above;
    *peer(&s.equal[rank], lane) = my_equal;
  }
  cluster_sync();
  const u32 above = lane < CLUSTER ? s.above[lane] : 0u, equal = lane < CLUSTER ? s.equal[lane] : 0u;
  const u32 above_before = __reduce_add_sync(EVERY_LANE, lane < rank ? above : 0u);
  const u32 equal_before = __reduce_add_sync(EVERY_LANE, lane < rank ? equal : 0u);
  u32 total = __reduce_add_sync(EVERY_LANE, above);
  u32 base = above_before;
  u32 before[VECTORS];
  if (!exact) {   // ties: the lowest positions
    total += need;
    base += min(need, equal_before);
    positions_before(tied, s, warp, lane, before);
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
      u32 place = equal_before + before[v];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const u32 bit = 1u << (4 * v + j);
        if (tied & bit) { if (place < need) chosen |= bit; place++; }
      }
    }
  }
  positions_before(chosen, s, warp, lane, before);
#pragma unroll
  for (int v = 0; v < VECTORS; v++) {
    u32 place = base + before[v];
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (chosen >> (4 * v + j) & 1u) out[place++] = begin + (v * THREADS + thread) * 4 + j;
  }
  for (int i = total + rank * THREADS + thread; i < k; i += CLUSTER * THREADS) out[i] = -1;
}

// One CTA's share of its row. Of a row behind the real ones no score is read, and the whole cluster
// leaves: what it selects must stay within the page table all the same.
__device__ __forceinline__ void topk_block(
    Shared& s, int block, const float* scores, long long row_stride, int length, int k,
    int first_row, const int* real_rows, int* out) {
  const int rank = CLUSTER == 1 ? 0 : block % CLUSTER;
  const long long row = block / CLUSTER;
  out += row * k;
  if (first_row + row >= *real_rows) {
    for (int i = rank * THREADS + threadIdx.x; i < k; i += CLUSTER * THREADS) out[i] = -1;
    return;
  }
  topk_row(s, rank, scores + row * row_stride, length, k, out);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
sm90_f32_topk(const float* __restrict__ scores, long long row_stride, int length, int k,
              int first_row, const int* __restrict__ real_rows, int* __restrict__ out) {
  __shared__ Shared s;
  topk_block(s, blockIdx.x, scores, row_stride, length, k, first_row, real_rows, out);
}
