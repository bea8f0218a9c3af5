// One instance a kind of CPU, as the kernels.
#include "bench/ceilings.h"

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

}  // namespace

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
