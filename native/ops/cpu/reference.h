// Plain references of the ops: one loop a sum, in the order ops/ops.h defines, without vectors,
// blocking or threads. The fast kernels, of every kind of CPU, are equal to them to the bit; tests
// compare. Same signatures as ops/ops.h.
#pragma once

#include "ops/ops.h"

namespace tessera::reference {

// The functions as single operations of f32; ops/kernels/simd.h has the same in vectors.
float exp(float x);
float erf(float x);
float gelu(float x);
float silu(float x);
// The sum16 of `count` values at(i): element i to sum i mod 16, then 8 + 4 + 2 + 1.
template <typename At>
float sum16(int count, At at) {
  float sums[16] = {};
  for (int i = 0; i < count; ++i) sums[i % 16] = at(i, sums[i % 16]);
  for (int width = 8; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) sums[j] = sums[j] + sums[j + width];
  return sums[0];
}

void linear(const Context& context, const LinearArgs& args);
void rms_norm(const Context& context, float* y, const float* x, const float* weight, int rows,
              int dim, float eps);
void layer_norm(const Context& context, float* y, const float* x, const float* weight,
                const float* bias, int rows, int dim, float eps);
void rms_norm_heads(const Context& context, const RmsNormHeadsArgs& args);
void sum_squares_heads(const Context& context, const SumSquaresHeadsArgs& args);
void scale_heads(const Context& context, const ScaleHeadsArgs& args);
void rope(const Context& context, const RopeArgs& args);
void write_cache(const Context& context, const WriteCacheArgs& args);
void attention(const Context& context, const AttentionArgs& args);
void vision_attention(const Context& context, const VisionAttentionArgs& args);
void cross_attention(const Context& context, const CrossAttentionArgs& args);
void norm_each_head(const Context& context, const NormEachHeadArgs& args);
void gated_residual(const Context& context, const GatedResidualArgs& args);
void residual(const Context& context, float* h, const float* y, const float* bias,
              const float* scale, int rows, int dim);
void silu_mul(const Context& context, float* out, const float* x, int rows, int width);
void gelu(const Context& context, float* y, const float* x, size_t count);
void add(const Context& context, float* a, const float* b, size_t count);
bool head_non_finite(const Context& context, const float* raw, int count);
LogSum head_log_sum(const Context& context, const float* values, int count, float temperature);
bool head_best(const Context& context, const float* raw, const float* processed, int first_id,
               int count, const HeadDraw& draw, HeadCandidate* best);
int head_top(const Context& context, const float* values, int first_id, int count, int wanted,
             int32_t* ids);

}  // namespace tessera::reference
