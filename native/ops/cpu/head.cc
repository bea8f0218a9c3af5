// Contracts and orders of sums: ops/ops.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/cpu/reference.h"

namespace tessera::reference {

bool head_non_finite(const Context&, const float* raw, int count) {
  return !std::all_of(raw, raw + count, [](float value) { return std::isfinite(value); });
}

LogSum head_log_sum(const Context&, const float* values, int count, float temperature) {
  const float t = temperature == 0.0f ? 1.0f : temperature;
  float top = kNoLogit;
  for (int i = 0; i < count; ++i) top = std::max(top, values[i] / t);
  if (top == kNoLogit) return {top, 0.0f};
  return {top, sum16(count, [&](int i, float sum) { return sum + exp(values[i] / t - top); })};
}

bool head_best(const Context&, const float* raw, const float* processed, int first_id, int count,
               const HeadDraw& draw, HeadCandidate* best) {
  bool found = false;
  for (int i = 0; i < count; ++i) {
    if (processed[i] == kNoLogit) continue;
    const bool greedy = draw.temperature == 0.0f;
    const float scaled = greedy ? processed[i] : processed[i] / draw.temperature;
    const float noise = greedy ? 0.0f : gumbel(draw.seed, draw.index, draw.choice, first_id + i);
    if (found && !(scaled + noise > best->scaled + best->noise)) continue;
    *best = {first_id + i, raw[i], scaled, noise};
    found = true;
  }
  return found;
}

int head_top(const Context&, const float* values, int first_id, int count, int wanted,
             int32_t* ids) {
  std::vector<int32_t> order;
  for (int i = 0; i < count; ++i)
    if (values[i] != kNoLogit) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return values[a] > values[b]; });
  const int kept = std::min<int>(wanted, static_cast<int>(order.size()));
  for (int i = 0; i < kept; ++i) ids[i] = first_id + order[i];
  return kept;
}

}  // namespace tessera::reference
