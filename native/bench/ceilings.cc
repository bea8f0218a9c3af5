// One instance a kind of CPU, as the kernels.
#include "bench/ceilings.h"

#include "ops/kernels/dot.h"
#include "ops/kernels/simd.h"

namespace tessera::bench::TESSERA_NS {

namespace {

using namespace tessera::TESSERA_NS;

template <int kStreams, bool kPrefetch>
float read_streams(const float* data, size_t count) {
  const size_t part = count / kStreams / 16 * 16;
  V16 sums[kStreams];
  for (int s = 0; s < kStreams; ++s) sums[s] = splat(0.0f);
  for (size_t i = 0; i < part; i += 16)
    for (int s = 0; s < kStreams; ++s) {
      const float* at = data + s * part + i;
      if (kPrefetch) __builtin_prefetch(at + 1024);
      sums[s] = sums[s] + load(at);
    }
  V16 all = sums[0];
  for (int s = 1; s < kStreams; ++s) all = all + sums[s];
  return fold(all);
}

template <int kChains>
float fma_chains(long turns, double* flops) {
  V16 sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = splat(static_cast<float>(c));
  const V16 a = splat(0.999999f), b = splat(1e-7f);
  for (long t = 0; t < turns; ++t)
    for (int c = 0; c < kChains; ++c) sums[c] = tessera::TESSERA_NS::fma(sums[c], a, b);
  V16 all = sums[0];
  for (int c = 1; c < kChains; ++c) all = all + sums[c];
  *flops = 2.0 * 16 * kChains * static_cast<double>(turns);
  return fold(all);
}

// Weights and activations of a few groups, of which all that is read stays in L1.
constexpr int kL1Groups = 4, kMostRows = 8;
struct L1Data {
  alignas(64) uint8_t weights[kL1Groups][kPanelOutputs * kGroupInputs];
  alignas(64) int8_t x[kMostRows][kL1Groups][kGroupInputs];
  L1Data() {
    uint32_t state = 1;
    const auto next = [&] { return static_cast<uint8_t>((state = state * 1664525u + 1) >> 24); };
    for (auto& group : weights)
      for (uint8_t& value : group) value = next();
    for (auto& row : x)
      for (auto& group : row)
        for (int8_t& value : group) value = static_cast<int8_t>(next() % 255 - 127);
  }
};

template <typename Dot, int kRows, int kCount>
float dot_groups(long turns, double* ops) {
  static L1Data data;
  V16 sums[kRows][kCount];
  for (auto& row : sums)
    for (V16& sum : row) sum = splat(0.0f);
  const V16 scale = splat(1e-6f);
  for (long t = 0; t < turns; ++t) {
    asm volatile("" : : "r"(&data) : "memory");  // what is read is read again in each turn
    for (int g = 0; g < kL1Groups; ++g) {
      typename Dot::Sums dots[kRows][kCount];
      for (auto& row : dots)
        for (auto& dot : row) dot = Dot::start(g);
#pragma GCC unroll 8
      for (int quad = 0; quad < kGroupInputs / 4; ++quad) {
        typename Dot::Weights w[kCount];
        for (int v = 0; v < kCount; ++v) w[v] = Dot::load(data.weights[g], quad, v);
        for (int r = 0; r < kRows; ++r)
          for (int v = 0; v < kCount; ++v) Dot::add(dots[r][v], w[v], data.x[r][g] + quad * 4);
      }
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kCount; ++v)
          sums[r][v] =
              tessera::TESSERA_NS::fma(Dot::values(dots[r][v], g), scale * scale, sums[r][v]);
    }
  }
  V16 all = splat(0.0f);
  for (auto& row : sums)
    for (const V16& sum : row) all = all + sum;
  *ops = 2.0 * 16 * kRows * kCount * kGroupInputs * kL1Groups * static_cast<double>(turns);
  return fold(all);
}

template <typename Dot>
float dots_of(long turns, int variant, double* ops) {
#if defined(TESSERA_KIND_AVX512)
  if (variant == 0) return dot_groups<Dot, 4, 4>(turns, ops);
  if (variant == 1) return dot_groups<Dot, 6, 2>(turns, ops);
  return dot_groups<Dot, 3, 4>(turns, ops);
#else
  if (variant == 0) return dot_groups<Dot, 4, 1>(turns, ops);
  if (variant == 1) return dot_groups<Dot, 2, 1>(turns, ops);
  return dot_groups<Dot, 3, 1>(turns, ops);
#endif
}

}  // namespace

float dots(WeightType type, long turns, int variant, double* ops) {
  return type == WeightType::kInt8 ? dots_of<Int8Dot>(turns, variant, ops)
                                   : dots_of<Int4Dot>(turns, variant, ops);
}

float read(const float* data, size_t count, int variant) {
  switch (variant) {
    case 0:
      return read_streams<4, false>(data, count);
    case 1:
      return read_streams<8, false>(data, count);
    case 2:
      return read_streams<16, false>(data, count);
    default:
      return read_streams<8, true>(data, count);
  }
}

float fma(long turns, int variant, double* flops) {
#if defined(TESSERA_KIND_AVX512)
  constexpr int kFew = 8, kSome = 12, kMany = 24;
#else
  constexpr int kFew = 4, kSome = 5, kMany = 6;
#endif
  if (variant == 0) return fma_chains<kFew>(turns, flops);
  if (variant == 1) return fma_chains<kSome>(turns, flops);
  return fma_chains<kMany>(turns, flops);
}

}  // namespace tessera::bench::TESSERA_NS
