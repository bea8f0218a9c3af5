// What memory and arithmetic units give at most: loops that do nothing else, several variants each;
// the best counts.
#pragma once

#include <cstddef>

#include "ops/ops.h"

namespace tessera::bench {

inline constexpr int kReadVariants = 4;
inline constexpr int kFmaVariants = 3;
inline constexpr int kDotVariants = 3;

struct Ceilings {
  // Sums `count` f32 by vector loads over 4, 8 or 16 streams, or 8 with prefetch. Returns the sum.
  float (*read)(const float* data, size_t count, int variant);
  // `turns` rounds of fused multiply-adds in register chains. Returns something; `flops` gets their
  // number.
  float (*fma)(long turns, int variant, double* flops);
  // `turns` rounds of dots of 32 from L1, converted, scaled and added by fma; `ops` gets two a
  // product.
  float (*dots)(WeightType type, long turns, int variant, double* ops);
};

// Of the widest kernels this machine has, or of those that TESSERA_CPU names.
Ceilings ceilings_here();

}  // namespace tessera::bench
