// Contracts and orders of sums: ops/ops.h.
#include <cmath>

#include "ops/cpu/reference.h"

namespace tessera::reference {

void rope(const Context&, const RopeArgs& args) {
  const int half = args.head_dim / 2;
  for (int r = 0; r < args.rows; ++r)
    for (int h = 0; h < args.heads; ++h)
      for (int d = 0; d < half; ++d) {
        const float* table = args.table + static_cast<size_t>(args.positions[r]) * args.head_dim;
        float& a = args.x[r * args.stride + h * args.head_dim + d];
        float& b = args.x[r * args.stride + h * args.head_dim + half + d];
        const float cos = table[d], sin = table[half + d], x = a, y = b;
        a = x * cos - y * sin;
        b = y * cos + x * sin;
      }
}

void residual(const Context&, float* h, const float* y, const float* bias, const float* scale,
              int rows, int dim) {
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < dim; ++i) {
      float& to = h[static_cast<size_t>(r) * dim + i];
      float value = y[static_cast<size_t>(r) * dim + i];
      if (bias != nullptr) value = value + bias[i];
      to = scale == nullptr ? to + value : std::fma(scale[i], value, to);
    }
}

void gated_residual(const Context&, const GatedResidualArgs& args) {
  for (int r = 0; r < args.rows; ++r)
    for (int i = 0; i < args.dim && !args.ranges[r].empty(); ++i) {
      float& to = args.h[static_cast<size_t>(r) * args.dim + i];
      float value = args.y[static_cast<size_t>(r) * args.dim + i];
      if (args.bias != nullptr) value = value + args.bias[i];
      to = args.gate == nullptr ? to + value : std::fma(*args.gate, value, to);
    }
}

void silu_mul(const Context&, float* out, const float* x, int rows, int width) {
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < width; ++i) {
      const float* row = x + static_cast<size_t>(r) * 2 * width;
      out[static_cast<size_t>(r) * width + i] = silu(row[i]) * row[width + i];
    }
}

void gelu(const Context&, float* y, const float* x, size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] = gelu(x[i]);
}

void add(const Context&, float* a, const float* b, size_t count) {
  for (size_t i = 0; i < count; ++i) a[i] = a[i] + b[i];
}

}  // namespace tessera::reference
