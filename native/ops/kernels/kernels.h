// The ops that have one instance per kind of CPU; ops/dispatch.cc chooses. Contracts are in
// ops/ops.h.
#pragma once

#include "ops/ops.h"

#define TESSERA_KERNELS(NAMESPACE)                                                                \
  namespace tessera::NAMESPACE {                                                                  \
  void linear(const Context& context, const LinearArgs& args);                                    \
  void linear_groups(const Context& context, const LinearArgs& args);                             \
  void rms_norm(const Context& context, float* y, const float* x, const float* weight, int rows,  \
                int dim, float eps);                                                              \
  void layer_norm(const Context& context, float* y, const float* x, const float* weight,          \
                  const float* bias, int rows, int dim, float eps);                               \
  void rms_norm_heads(const Context& context, const RmsNormHeadsArgs& args);                      \
  void sum_squares_heads(const Context& context, const SumSquaresHeadsArgs& args);                \
  void scale_heads(const Context& context, const ScaleHeadsArgs& args);                           \
  void rope(const Context& context, const RopeArgs& args);                                        \
  void write_cache(const Context& context, const WriteCacheArgs& args);                           \
  void attention(const Context& context, const AttentionArgs& args);                              \
  void vision_attention(const Context& context, const VisionAttentionArgs& args);                 \
  void cross_attention(const Context& context, const CrossAttentionArgs& args);                   \
  void norm_each_head(const Context& context, const NormEachHeadArgs& args);                      \
  void gated_residual(const Context& context, const GatedResidualArgs& args);                     \
  void residual(const Context& context, float* h, const float* y, const float* bias,              \
                const float* scale, int rows, int dim);                                           \
  void silu_mul(const Context& context, float* out, const float* x, int rows, int width);         \
  void gelu(const Context& context, float* y, const float* x, size_t count);                      \
  void add(const Context& context, float* a, const float* b, size_t count);                       \
  bool head_non_finite(const Context& context, const float* raw, int count);                      \
  bool head_best(const Context& context, const float* raw, const float* processed, int first_id,  \
                 int count, const HeadDraw& draw, HeadCandidate* best);                           \
  LogSum head_log_sum(const Context& context, const float* values, int count, float temperature); \
  }

TESSERA_KERNELS(scalar)
#if defined(__x86_64__)
TESSERA_KERNELS(avx2)
TESSERA_KERNELS(avx512)
// The only instance of its source besides the kinds': AVX-512 with VNNI.
namespace tessera::avx512_vnni {
void linear_groups(const Context& context, const LinearArgs& args);
}
#endif
