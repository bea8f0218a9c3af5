// The head over one row of one lane.
#include <array>
#include <limits>

#include "core/philox.h"
#include "ops/kernels/kernels.h"
#include "ops/kernels/simd.h"

namespace tessera::TESSERA_NS {

namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr int kCounters = 16;             // Philox counters at once
constexpr int kBlockIds = 4 * kCounters;  // ids whose words they give
constexpr int kBoundBits = 9;

// Words of ids [first, first + kBlockIds); first is a multiple of 4.
void philox_block(uint32_t* words, uint32_t first, const HeadDraw& draw) {
  uint32_t a[kCounters], b[kCounters], c[kCounters], d[kCounters];
  for (int i = 0; i < kCounters; ++i) {
    a[i] = first / 4 + i;
    b[i] = draw.index;
    c[i] = draw.choice;
    d[i] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(draw.seed), k1 = static_cast<uint32_t>(draw.seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (int i = 0; i < kCounters; ++i) {
      const uint64_t x = uint64_t{kPhiloxMultiply[0]} * a[i];
      const uint64_t y = uint64_t{kPhiloxMultiply[1]} * c[i];
      a[i] = static_cast<uint32_t>(y >> 32) ^ b[i] ^ k0;
      b[i] = static_cast<uint32_t>(y);
      c[i] = static_cast<uint32_t>(x >> 32) ^ d[i] ^ k1;
      d[i] = static_cast<uint32_t>(x);
    }
    k0 += kPhiloxKeyStep[0];
    k1 += kPhiloxKeyStep[1];
  }
  for (int i = 0; i < kCounters; ++i) {
    words[4 * i] = a[i];
    words[4 * i + 1] = b[i];
    words[4 * i + 2] = c[i];
    words[4 * i + 3] = d[i];
  }
}

// The greatest noise of words with the same upper bits: an id whose value with this bound does not
// win needs no logarithms.
const std::array<float, 1 << kBoundBits>& noise_bounds() {
  static const auto bounds = [] {
    std::array<float, 1 << kBoundBits> out;
    for (uint32_t i = 0; i < out.size(); ++i)
      out[i] = gumbel_of_word(((i + 1) << (32 - kBoundBits)) - 1);
    return out;
  }();
  return bounds;
}

float greatest(const float* values, int count) {
  V16 best = splat(kNothing);
  int i = 0;
  for (; i + 16 <= count; i += 16) best = max(best, load(values + i));
  if (i < count) best = max(best, load_part(values + i, count - i, kNothing));
  float lanes[16];
  store(lanes, best);
  float top = kNothing;
  for (const float value : lanes) top = value > top ? value : top;
  return top;
}

int best_greedy(const float* processed, int count) {
  const float top = greatest(processed, count);
  if (top == kNothing) return -1;
  for (int k = 0; k < count; ++k)
    if (processed[k] == top) return k;
  return -1;
}

struct Drawn {
  int at = -1;
  float value = kNothing, noise = 0.0f;
};

void draw_block(Drawn& best, const float* processed, int first_id, int count, int block,
                const HeadDraw& draw) {
  const auto& bounds = noise_bounds();
  const int start = block > first_id ? block : first_id;
  const int end = block + kBlockIds < first_id + count ? block + kBlockIds : first_id + count;
  // Not even the greatest noise makes one of them win: no words are needed. Division and addition
  // round monotonically.
  const float top = greatest(processed + (start - first_id), end - start) / draw.temperature;
  if (!(top + bounds.back() > best.value)) return;
  uint32_t words[kBlockIds];
  philox_block(words, static_cast<uint32_t>(block), draw);
  for (int id = start; id < end; ++id) {
    const float scaled = processed[id - first_id] / draw.temperature;
    const uint32_t word = words[id - block];
    if (!(scaled + bounds[word >> (32 - kBoundBits)] > best.value)) continue;
    const float noise = gumbel_of_word(word);
    if (scaled + noise > best.value) best = {id - first_id, scaled + noise, noise};
  }
}

}  // namespace

bool head_non_finite(const Context&, const float* raw, int count) {
  V16 sum = splat(0.0f);  // x − x is 0, or NaN
  int i = 0;
  for (; i + 16 <= count; i += 16) sum = sum + (load(raw + i) - load(raw + i));
  if (i < count) {
    const V16 rest = load_part(raw + i, count - i, 0.0f);
    sum = sum + (rest - rest);
  }
  return !(fold(sum) == 0.0f);
}

bool head_best(const Context&, const float* raw, const float* processed, int first_id, int count,
               const HeadDraw& draw, HeadCandidate* best) {
  Drawn drawn;
  if (draw.temperature == 0.0f) {
    drawn.at = best_greedy(processed, count);
  } else {
    for (int block = first_id / kBlockIds * kBlockIds; block < first_id + count; block += kBlockIds)
      draw_block(drawn, processed, first_id, count, block, draw);
  }
  if (drawn.at < 0) return false;
  const float value = processed[drawn.at];
  const float scaled = draw.temperature == 0.0f ? value : value / draw.temperature;
  *best = {first_id + drawn.at, raw[drawn.at], scaled, drawn.noise};
  return true;
}

LogSum head_log_sum(const Context&, const float* values, int count, float temperature) {
  const V16 t = splat(temperature == 0.0f ? 1.0f : temperature);
  const auto at = [&](int i) {
    const V16 raw = i + 16 <= count ? load(values + i) : load_part(values + i, count - i, kNothing);
    return raw / t;
  };
  V16 best = splat(kNothing);
  for (int i = 0; i < count; i += 16) best = max(best, at(i));
  float lanes[16];
  store(lanes, best);
  float top = kNothing;
  for (const float value : lanes) top = value > top ? value : top;
  if (top == kNothing) return {top, 0.0f};
  V16 sum = splat(0.0f);
  for (int i = 0; i < count; i += 16) sum = sum + exp(at(i) - splat(top));
  return {top, fold(sum)};
}

}  // namespace tessera::TESSERA_NS
