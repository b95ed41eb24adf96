// Some CTAs of a launch on the CPU, at once, of a one-dimensional grid: parameters by their addresses, as
// a driver takes them.
// Macros: KERNEL_SOURCE, KERNEL, TWIN (the header of instructions), SHARED_BYTES where it takes any, MEETING
// (threads of a CTA in a cluster's barrier) where others than 256.
#include TWIN

#include <type_traits>
#include <utility>

#include KERNEL_SOURCE

#ifdef HOPPER_PTX
alignas(1024) uint8_t memory[1];  // the kernel's extern array; addresses are the twin's own
#endif

static void** given;
template <class T> T taken(const void* from) {  // wherever that lies
  T x;
  std::memcpy((void*)&x, from, sizeof x);
  return x;
}
template <class... A, size_t... I> void call(void (*kernel)(A...), std::index_sequence<I...>) {
  kernel(taken<std::remove_cv_t<A>>(given[I])...);
}
template <class... A> void call(void (*kernel)(A...)) { call(kernel, std::index_sequence_for<A...>{}); }

static void one(int) { call(KERNEL); }

// Why it failed, nullptr where it did not.
extern "C" const char* launch(void** parameters, int grid, int first, int ctas, int threads) {
  given = parameters;
  gridDim.x = grid, twin::first_block = first;
#ifdef HOPPER_PTX
#ifdef MEETING
  meeting = MEETING;
#endif
#ifdef SHARED_BYTES
  shared_memories.assign(ctas, std::vector<char>(SHARED_BYTES, (char)0xff));
#endif
  warp_words.assign(ctas * threads / 32, {});
  named.assign(ctas, std::vector<Named>(16));
  phases.assign(ctas, {});
#endif
  return twin::run(ctas, threads, nullptr, 0, one);
}
