// Norms: sums over a row by sum16.
#include <algorithm>

#include "ops/kernels/kernels.h"
#include "ops/kernels/simd.h"

namespace tessera::TESSERA_NS {

namespace {

float sum_squares(const float* x, int count, float mean) {
  V16 sum = splat(0.0f);
  const V16 shift = splat(mean);
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    const V16 d = load(x + i) - shift;
    sum = fma(d, d, sum);
  }
  if (i < count) {
    const V16 d = load_part(x + i, count - i, mean) - shift;
    sum = fma(d, d, sum);
  }
  return fold(sum);
}

float sum16(const float* x, int count) {
  V16 sum = splat(0.0f);
  int i = 0;
  for (; i + 16 <= count; i += 16) sum = sum + load(x + i);
  if (i < count) sum = sum + load_part(x + i, count - i, 0.0f);
  return fold(sum);
}

float inverse_root(float value) { return 1.0f / std::sqrt(value); }

// y = (x · factor) · weight.
void scale_row(float* y, const float* x, const float* weight, int count, float factor) {
  const V16 f = splat(factor);
  int i = 0;
  for (; i + 16 <= count; i += 16) store(y + i, load(x + i) * f * load(weight + i));
  if (i < count)
    store_part(y + i,
               load_part(x + i, count - i, 0.0f) * f * load_part(weight + i, count - i, 0.0f),
               count - i);
}

// Heads of a group in rising order from 0, the groups in the tree.
float groups_squares(const float* row, std::span<const int> starts, int head_dim) {
  float groups[kMaxLanes];
  const int count = static_cast<int>(starts.size()) - 1;
  for (int g = 0; g < count; ++g) {
    groups[g] = 0.0f;
    for (int h = starts[g]; h < starts[g + 1]; ++h)
      groups[g] += sum_squares(row + h * head_dim, head_dim, 0.0f);
  }
  for (int step = 1; step < count; step *= 2)
    for (int g = 0; g < count; g += 2 * step) groups[g] += groups[g + step];
  return groups[0];
}

}  // namespace

void rms_norm(const Context& context, float* y, const float* x, const float* weight, int rows,
              int dim, float eps) {
  context.pool->parallel_for(rows, [&](int r) {
    const float* row = x + static_cast<size_t>(r) * dim;
    const float mean = sum_squares(row, dim, 0.0f) / static_cast<float>(dim);
    scale_row(y + static_cast<size_t>(r) * dim, row, weight, dim, inverse_root(mean + eps));
  });
}

void layer_norm(const Context& context, float* y, const float* x, const float* weight,
                const float* bias, int rows, int dim, float eps) {
  context.pool->parallel_for(rows, [&](int r) {
    const float* row = x + static_cast<size_t>(r) * dim;
    float* out = y + static_cast<size_t>(r) * dim;
    const float mean = sum16(row, dim) / static_cast<float>(dim);
    const float variance = sum_squares(row, dim, mean) / static_cast<float>(dim);
    const float factor = inverse_root(variance + eps);
    for (int i = 0; i < dim; ++i) out[i] = std::fma((row[i] - mean) * factor, weight[i], bias[i]);
  });
}

void rms_norm_heads(const Context& context, const RmsNormHeadsArgs& args) {
  const int heads = args.group_starts[kMaxLanes];
  const int dim = heads * args.head_dim;
  context.pool->parallel_for(args.rows, [&](int r) {
    float* row = args.x + r * args.stride;
    const float mean =
        groups_squares(row, args.group_starts, args.head_dim) / static_cast<float>(dim);
    scale_row(row, row, args.weight, dim, inverse_root(mean + args.eps));
  });
}

void sum_squares_heads(const Context& context, const SumSquaresHeadsArgs& args) {
  context.pool->parallel_for(args.rows, [&](int r) {
    args.sums[r * args.sums_stride] =
        groups_squares(args.x + r * args.stride, args.group_starts, args.head_dim);
  });
}

void scale_heads(const Context& context, const ScaleHeadsArgs& args) {
  const int dim = args.heads * args.head_dim;
  const auto total = static_cast<float>(args.total_heads * args.head_dim);
  context.pool->parallel_for(args.rows, [&](int r) {
    float* row = args.x + r * args.stride;
    const float mean = args.sums[r * args.sums_stride] / total;
    scale_row(row, row, args.weight, dim, inverse_root(mean + args.eps));
  });
}

void norm_each_head(const Context& context, const NormEachHeadArgs& args) {
  const int dim = args.head_dim;
  context.pool->parallel_for(args.rows, [&](int r) {
    for (int h = 0; h < args.heads; ++h) {
      float* x = args.x + r * args.stride + h * dim;
      const float mean = sum_squares(x, dim, 0.0f) / static_cast<float>(dim);
      scale_row(x, x, args.weight, dim, inverse_root(mean + args.eps));
    }
  });
}

}  // namespace tessera::TESSERA_NS
