#include "bench/measure.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "bench/ceilings.h"
#include "core/buffer.h"
#include "core/thread_pool.h"

namespace tessera::bench {

namespace {

constexpr int kRounds = 5;
constexpr long kFmaTurns = 1'000'000;
volatile float sink;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Of `variants`, each once a round: the best median of amount over seconds. `work` returns the
// amount.
template <typename Work>
double best_rate(int variants, const Work& work) {
  std::vector<std::vector<double>> rates(variants);
  for (int round = -1; round < kRounds; ++round)  // the first one warms up
    for (int variant = 0; variant < variants; ++variant) {
      const auto start = std::chrono::steady_clock::now();
      const double amount = work(variant);
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
      if (round >= 0) rates[variant].push_back(amount / spent.count());
    }
  double best = 0;
  for (const auto& of : rates) best = std::max(best, median(of));
  return best;
}

}  // namespace

MeasuredCeilings measure_ceilings(int threads, size_t read_bytes) {
  const Ceilings here = ceilings_here();
  const ThreadPool pool(threads);
  const size_t part = read_bytes / sizeof(float) / threads;
  Buffer<float> memory(part * threads);
  pool.parallel_for(threads, [&](int i) {
    std::fill_n(memory.data() + i * part, part, 1.0f);  // pages are there before they are read
  });
  MeasuredCeilings measured{};
  std::vector<float> sums(threads);  // so that nothing is left out
  measured.read_bytes_per_second = best_rate(kReadVariants, [&](int variant) {
    pool.parallel_for(threads,
                      [&](int i) { sums[i] = here.read(memory.data() + i * part, part, variant); });
    sink = sums[0];
    return static_cast<double>(memory.bytes());
  });
  std::vector<double> flops(threads);
  measured.flops_per_second = best_rate(kFmaVariants, [&](int variant) {
    pool.parallel_for(threads, [&](int i) { sums[i] = here.fma(kFmaTurns, variant, &flops[i]); });
    sink = sums[0];
    double all = 0;
    for (const double own : flops) all += own;
    return all;
  });
  return measured;
}

}  // namespace tessera::bench
