// Chooses the instance of an op for the Context's kind of CPU.
#include "ops/kernels/kernels.h"

#if defined(__x86_64__)
#define TESSERA_CHOOSE(call) \
  switch (context.kind) {    \
    case CpuKind::kAvx512:   \
      return avx512::call;   \
    case CpuKind::kAvx2:     \
      return avx2::call;     \
    case CpuKind::kScalar:   \
      break;                 \
  }                          \
  return scalar::call
#else
#define TESSERA_CHOOSE(call) return scalar::call
#endif

namespace tessera {

namespace {

void groups_of(const Context& context, const LinearArgs& args) {
#if defined(__x86_64__)
  if (context.kind == CpuKind::kAvx512 && context.vnni && has_vnni())
    return avx512_vnni::linear_groups(context, args);
#endif
  TESSERA_CHOOSE(linear_groups(context, args));
}

}  // namespace

void linear(const Context& context, const LinearArgs& args) {
  if (args.lanes[0].type != WeightType::kBf16) return groups_of(context, args);
  TESSERA_CHOOSE(linear(context, args));
}

void rms_norm(const Context& context, float* y, const float* x, const float* weight, int rows,
              int dim, float eps) {
  TESSERA_CHOOSE(rms_norm(context, y, x, weight, rows, dim, eps));
}

void layer_norm(const Context& context, float* y, const float* x, const float* weight,
                const float* bias, int rows, int dim, float eps) {
  TESSERA_CHOOSE(layer_norm(context, y, x, weight, bias, rows, dim, eps));
}

void rms_norm_heads(const Context& context, const RmsNormHeadsArgs& args) {
  TESSERA_CHOOSE(rms_norm_heads(context, args));
}

void sum_squares_heads(const Context& context, const SumSquaresHeadsArgs& args) {
  TESSERA_CHOOSE(sum_squares_heads(context, args));
}

void scale_heads(const Context& context, const ScaleHeadsArgs& args) {
  TESSERA_CHOOSE(scale_heads(context, args));
}

void rope(const Context& context, const RopeArgs& args) { TESSERA_CHOOSE(rope(context, args)); }

void write_cache(const Context& context, const WriteCacheArgs& args) {
  TESSERA_CHOOSE(write_cache(context, args));
}

void attention(const Context& context, const AttentionArgs& args) {
  TESSERA_CHOOSE(attention(context, args));
}

void vision_attention(const Context& context, const VisionAttentionArgs& args) {
  TESSERA_CHOOSE(vision_attention(context, args));
}

void cross_attention(const Context& context, const CrossAttentionArgs& args) {
  TESSERA_CHOOSE(cross_attention(context, args));
}

void norm_each_head(const Context& context, const NormEachHeadArgs& args) {
  TESSERA_CHOOSE(norm_each_head(context, args));
}

void gated_residual(const Context& context, const GatedResidualArgs& args) {
  TESSERA_CHOOSE(gated_residual(context, args));
}

void residual(const Context& context, float* h, const float* y, const float* bias,
              const float* scale, int rows, int dim) {
  TESSERA_CHOOSE(residual(context, h, y, bias, scale, rows, dim));
}

void silu_mul(const Context& context, float* out, const float* x, int rows, int width) {
  TESSERA_CHOOSE(silu_mul(context, out, x, rows, width));
}

void gelu(const Context& context, float* y, const float* x, size_t count) {
  TESSERA_CHOOSE(gelu(context, y, x, count));
}

void add(const Context& context, float* a, const float* b, size_t count) {
  TESSERA_CHOOSE(add(context, a, b, count));
}

bool head_non_finite(const Context& context, const float* raw, int count) {
  TESSERA_CHOOSE(head_non_finite(context, raw, count));
}

bool head_best(const Context& context, const float* raw, const float* processed, int first_id,
               int count, const HeadDraw& draw, HeadCandidate* best) {
  TESSERA_CHOOSE(head_best(context, raw, processed, first_id, count, draw, best));
}

LogSum head_log_sum(const Context& context, const float* values, int count, float temperature) {
  TESSERA_CHOOSE(head_log_sum(context, values, count, temperature));
}

}  // namespace tessera
