// The top-k kernel's core on the CPU, as a shared library for the tests.
#include TOPK_SOURCE

static std::vector<Shared> memory(CLUSTER);
static const float* scores;
static int length, wanted;
static int* chosen;

static void one(int cta) { topk_row(memory[cta], cta, scores, length, wanted, chosen); }

extern "C" void topk(const float* row, int n, int k, int* out) {
  scores = row, length = n, wanted = k, chosen = out;
  twin::run(CLUSTER, THREADS, (char*)memory.data(), sizeof(Shared), one);
}
