// Contracts and orders of sums: ops/ops.h.
#include <cmath>

#include "ops/cpu/reference.h"

namespace tessera::reference {

namespace {

float sum_squares(const float* x, int count, float mean) {
  return sum16(count, [&](int i, float sum) {
    const float d = x[i] - mean;
    return std::fma(d, d, sum);
  });
}

float inverse_root(float value) { return 1.0f / std::sqrt(value); }

}  // namespace

void rms_norm(const Context&, float* y, const float* x, const float* weight, int rows, int dim,
              float eps) {
  for (int r = 0; r < rows; ++r) {
    const float* from = x + static_cast<size_t>(r) * dim;
    float* to = y + static_cast<size_t>(r) * dim;
    const float factor = inverse_root(sum_squares(from, dim, 0.0f) / static_cast<float>(dim) + eps);
    for (int i = 0; i < dim; ++i) to[i] = from[i] * factor * weight[i];
  }
}

void layer_norm(const Context&, float* y, const float* x, const float* weight, const float* bias,
                int rows, int dim, float eps) {
  for (int r = 0; r < rows; ++r) {
    const float* from = x + static_cast<size_t>(r) * dim;
    float* to = y + static_cast<size_t>(r) * dim;
    const float mean =
        sum16(dim, [&](int i, float sum) { return sum + from[i]; }) / static_cast<float>(dim);
    const float variance = sum_squares(from, dim, mean) / static_cast<float>(dim);
    const float factor = inverse_root(variance + eps);
    for (int i = 0; i < dim; ++i) to[i] = std::fma((from[i] - mean) * factor, weight[i], bias[i]);
  }
}

void rms_norm_heads(const Context&, const RmsNormHeadsArgs& args) {
  const int heads = args.group_starts[kMaxLanes];
  for (int r = 0; r < args.rows; ++r) {
    float* row = args.x + r * args.stride;
    float g[kMaxLanes] = {};
    for (int i = 0; i < kMaxLanes; ++i)
      for (int h = args.group_starts[i]; h < args.group_starts[i + 1]; ++h)
        g[i] = g[i] + sum_squares(row + h * args.head_dim, args.head_dim, 0.0f);
    const float sum = ((g[0] + g[1]) + (g[2] + g[3])) + ((g[4] + g[5]) + (g[6] + g[7]));
    const float mean = sum / static_cast<float>(heads * args.head_dim);
    const float factor = inverse_root(mean + args.eps);
    for (int i = 0; i < heads * args.head_dim; ++i) row[i] = row[i] * factor * args.weight[i];
  }
}

void sum_squares_heads(const Context&, const SumSquaresHeadsArgs& args) {
  const size_t groups = args.group_starts.size() - 1;
  for (int r = 0; r < args.rows; ++r) {
    const float* row = args.x + r * args.stride;
    float g[kMaxLanes] = {};
    for (size_t i = 0; i < groups; ++i)
      for (int h = args.group_starts[i]; h < args.group_starts[i + 1]; ++h)
        g[i] = g[i] + sum_squares(row + h * args.head_dim, args.head_dim, 0.0f);
    float sum = g[0];
    if (groups == 2) sum = g[0] + g[1];
    if (groups == 4) sum = (g[0] + g[1]) + (g[2] + g[3]);
    if (groups == 8) sum = ((g[0] + g[1]) + (g[2] + g[3])) + ((g[4] + g[5]) + (g[6] + g[7]));
    args.sums[r * args.sums_stride] = sum;
  }
}

void scale_heads(const Context&, const ScaleHeadsArgs& args) {
  for (int r = 0; r < args.rows; ++r) {
    float* row = args.x + r * args.stride;
    const float mean =
        args.sums[r * args.sums_stride] / static_cast<float>(args.total_heads * args.head_dim);
    const float factor = inverse_root(mean + args.eps);
    for (int i = 0; i < args.heads * args.head_dim; ++i) row[i] = row[i] * factor * args.weight[i];
  }
}

void norm_each_head(const Context&, const NormEachHeadArgs& args) {
  for (int r = 0; r < args.rows; ++r)
    for (int h = 0; h < args.heads; ++h) {
      float* x = args.x + r * args.stride + h * args.head_dim;
      const float mean = sum_squares(x, args.head_dim, 0.0f) / static_cast<float>(args.head_dim);
      const float factor = inverse_root(mean + args.eps);
      for (int d = 0; d < args.head_dim; ++d) x[d] = x[d] * factor * args.weight[d];
    }
}

}  // namespace tessera::reference
