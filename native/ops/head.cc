// The head: noise, the best id of a lane, the best k, finiteness.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "core/math.h"
#include "ops/ops.h"

namespace tessera {

namespace {

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = 0xD2511F53ull * counter[0];
    const uint64_t b = 0xCD9E8D57ull * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

float gumbel_of(uint32_t word) {
  const float u = (static_cast<float>(word >> 9) + 0.5f) * 0x1p-23f;
  return -log_f32(-log_f32(u));
}

constexpr float kNothing = -std::numeric_limits<float>::infinity();

float scaled_of(float processed, float temperature) {
  return temperature == 0.0f ? processed : processed / temperature;
}

}  // namespace

float gumbel(uint64_t seed, uint32_t index, uint32_t choice, uint32_t token_id) {
  const auto words = philox({token_id / 4, index, choice, 0}, static_cast<uint32_t>(seed),
                            static_cast<uint32_t>(seed >> 32));
  return gumbel_of(words[token_id % 4]);
}

bool head_non_finite(const float* raw, int count) {
  for (int i = 0; i < count; ++i)
    if (!std::isfinite(raw[i])) return true;
  return false;
}

bool head_best(const Context&, const float* raw, const float* processed, int first_id, int count,
               const HeadDraw& draw, HeadCandidate* best) {
  bool found = false;
  float best_value = kNothing;
  std::array<uint32_t, 4> words{};
  for (int i = 0; i < count; ++i) {
    if (processed[i] == kNothing) continue;
    const uint32_t id = static_cast<uint32_t>(first_id + i);
    float noise = 0.0f;
    if (draw.temperature != 0.0f) {
      words = philox({id / 4, draw.index, draw.choice, 0}, static_cast<uint32_t>(draw.seed),
                     static_cast<uint32_t>(draw.seed >> 32));
      noise = gumbel_of(words[id % 4]);
    }
    const float scaled = scaled_of(processed[i], draw.temperature);
    if (found && !(scaled + noise > best_value)) continue;
    best_value = scaled + noise;
    *best = {first_id + i, raw[i], scaled, noise};
    found = true;
  }
  return found;
}

int head_top(const Context&, const float* values, int first_id, int count, int wanted,
             int32_t* ids) {
  std::vector<int32_t> order;
  order.reserve(count);
  for (int i = 0; i < count; ++i)
    if (values[i] != kNothing) order.push_back(i);
  const int kept = std::min<int>(wanted, static_cast<int>(order.size()));
  std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int32_t a, int32_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  });
  for (int i = 0; i < kept; ++i) ids[i] = first_id + order[i];
  return kept;
}

}  // namespace tessera
