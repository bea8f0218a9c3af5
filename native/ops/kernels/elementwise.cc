// Ops without sums over a row.
#include <algorithm>

#include "ops/kernels/kernels.h"
#include "ops/kernels/simd.h"

namespace tessera::TESSERA_NS {

namespace {

constexpr size_t kTaskElements = 16384;

// Runs f(first, count) over `count` elements in tasks whose borders are multiples of 16.
template <typename F>
void over_elements(const Context& context, size_t count, F f) {
  const int tasks = static_cast<int>((count + kTaskElements - 1) / kTaskElements);
  context.pool->parallel_for(tasks, [&](int task) {
    const size_t first = task * kTaskElements;
    f(first, std::min(kTaskElements, count - first));
  });
}

// y[i] = f(i as V16 loader) in steps of 16 with a part at the end.
template <typename F>
void by_sixteen(float* y, size_t count, F f) {
  size_t i = 0;
  for (; i + 16 <= count; i += 16) store(y + i, f([i](const float* p) { return load(p + i); }));
  const int rest = static_cast<int>(count - i);
  if (rest > 0)
    store_part(y + i, f([i, rest](const float* p) { return load_part(p + i, rest, 0.0f); }), rest);
}

}  // namespace

void rope(const Context& context, const RopeArgs& args) {
  const int half = args.head_dim / 2;
  context.pool->parallel_for(args.rows, [&](int r) {
    const float* cos = args.table + static_cast<size_t>(args.positions[r]) * args.head_dim;
    const float* sin = cos + half;
    for (int h = 0; h < args.heads; ++h) {
      float* a = args.x + r * args.stride + h * args.head_dim;
      float* b = a + half;
      for (int d = 0; d < half; ++d) {
        const float x = a[d], y = b[d];
        a[d] = x * cos[d] - y * sin[d];
        b[d] = y * cos[d] + x * sin[d];
      }
    }
  });
}

void residual(const Context& context, float* h, const float* y, const float* bias,
              const float* scale, int rows, int dim) {
  context.pool->parallel_for(rows, [&](int r) {
    const size_t row = static_cast<size_t>(r) * dim;
    by_sixteen(h + row, dim, [&](auto at) {
      V16 value = at(y + row);
      if (bias != nullptr) value = value + at(bias);
      return scale != nullptr ? fma(at(scale), value, at(h + row)) : at(h + row) + value;
    });
  });
}

void gated_residual(const Context& context, const GatedResidualArgs& args) {
  context.pool->parallel_for(args.rows, [&](int r) {
    if (args.ranges[r].empty()) return;
    const size_t row = static_cast<size_t>(r) * args.dim;
    by_sixteen(args.h + row, args.dim, [&](auto at) {
      V16 value = at(args.y + row);
      if (args.bias != nullptr) value = value + at(args.bias);
      if (args.gate != nullptr) return fma(splat(*args.gate), value, at(args.h + row));
      return at(args.h + row) + value;
    });
  });
}

void silu_mul(const Context& context, float* out, const float* x, int rows, int width) {
  context.pool->parallel_for(rows, [&](int r) {
    const float* gate = x + static_cast<size_t>(r) * 2 * width;
    by_sixteen(out + static_cast<size_t>(r) * width, width,
               [&](auto at) { return silu_of(at(gate)) * at(gate + width); });
  });
}

void gelu(const Context& context, float* y, const float* x, size_t count) {
  over_elements(context, count, [&](size_t first, size_t part) {
    by_sixteen(y + first, part, [&](auto at) { return gelu_of(at(x + first)); });
  });
}

void add(const Context& context, float* a, const float* b, size_t count) {
  over_elements(context, count, [&](size_t first, size_t part) {
    by_sixteen(a + first, part, [&](auto at) { return at(a + first) + at(b + first); });
  });
}

}  // namespace tessera::TESSERA_NS
