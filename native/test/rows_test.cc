// Norms and elementwise ops against their references.
#include "ops/cpu/reference.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

// `op(context, fast)` returns what the op wrote; the reference runs when `fast` is false.
template <typename Op>
void compare(const std::string& what, Op op) {
  const std::vector<float> wanted = op(contexts()[0], false);
  for (const Context& context : contexts())
    EXPECT(same_bits(op(context, true), wanted), what, ", ", name_of(context));
}

constexpr int kDims[] = {1, 15, 16, 17, 31, 144, 257, 1000};

TEST("rms_norm and layer_norm are equal to their references") {
  for (const int dim : kDims)
    for (const int rows : {1, 3, 20}) {
      const auto x = random_values(static_cast<size_t>(rows) * dim, dim + rows);
      const auto weight = random_values(dim, 2), bias = random_values(dim, 3);
      compare(joined("rms_norm ", dim), [&](const Context& c, bool fast) {
        std::vector<float> y(x.size());
        (fast ? rms_norm : reference::rms_norm)(c, y.data(), x.data(), weight.data(), rows, dim,
                                                1e-6f);
        return y;
      });
      compare(joined("layer_norm ", dim), [&](const Context& c, bool fast) {
        std::vector<float> y(x.size());
        (fast ? layer_norm : reference::layer_norm)(c, y.data(), x.data(), weight.data(),
                                                    bias.data(), rows, dim, 1e-5f);
        return y;
      });
    }
}

TEST("rms_norm may write where it reads") {
  const auto x = random_values(300, 1), weight = random_values(100, 2);
  std::vector<float> apart(300), same = x;
  const Context& context = contexts().back();
  rms_norm(context, apart.data(), x.data(), weight.data(), 3, 100, 1e-6f);
  rms_norm(context, same.data(), same.data(), weight.data(), 3, 100, 1e-6f);
  EXPECT(same_bits(apart, same));
}

TEST("rms_norm_heads: 25 heads in groups of 3 and 4, and groups that are empty") {
  const std::vector<std::vector<int>> groups = {
      {0, 3, 6, 9, 12, 15, 18, 21, 25}, {0, 1, 2, 3, 4, 5, 6, 7, 9}, {0, 0, 0, 1, 1, 1, 2, 2, 3}};
  for (const auto& starts : groups)
    for (const int head_dim : {16, 32, 128}) {
      const int dim = starts.back() * head_dim;
      const size_t stride = 3 * dim + 5;
      const auto x = random_values(4 * stride, dim), weight = random_values(dim, 9);
      compare(joined("rms_norm_heads ", dim), [&](const Context& c, bool fast) {
        std::vector<float> y = x;
        (fast ? rms_norm_heads : reference::rms_norm_heads)(
            c, {y.data() + 5, stride, 4, head_dim, starts, weight.data(), 1e-6f});
        return y;
      });
    }
}

// The two halves on 1, 2, 4 and 8 ranks, sums added in the all-reduce's tree.
std::vector<float> in_halves(const Context& c, bool fast, const std::vector<int>& starts, int ranks,
                             int head_dim, std::vector<float> x, size_t stride,
                             const std::vector<float>& weight) {
  constexpr int kRows = 4;
  const int groups = kMaxLanes / ranks;
  std::vector<std::vector<float>> sums(ranks, std::vector<float>(2 * kRows, -1.0f));
  std::vector<std::vector<int>> own(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    for (int g = 0; g <= groups; ++g)
      own[rank].push_back(starts[rank * groups + g] - starts[rank * groups]);
    (fast ? sum_squares_heads : reference::sum_squares_heads)(
        c, {x.data() + 5 + starts[rank * groups] * head_dim, stride, kRows, head_dim, own[rank],
            sums[rank].data() + 1, 2});
  }
  for (int step = 1; step < ranks; step *= 2)
    for (int i = 0; i < ranks; i += 2 * step)
      add(c, sums[i].data(), sums[i + step].data(), sums[i].size());
  for (int rank = 0; rank < ranks; ++rank) {
    const int first = starts[rank * groups] * head_dim, heads = own[rank].back();
    if (heads == 0) continue;
    (fast ? scale_heads : reference::scale_heads)(
        c, {x.data() + 5 + first, stride, kRows, heads, starts.back(), head_dim, sums[0].data() + 1,
            2, weight.data() + first, 1e-6f});
  }
  return x;
}

TEST(
    "sum_squares_heads and scale_heads over ranks are rms_norm_heads, and equal to their "
    "references") {
  const std::vector<std::vector<int>> groups = {
      {0, 3, 6, 9, 12, 15, 18, 21, 25}, {0, 1, 2, 3, 4, 5, 6, 7, 9}, {0, 0, 1, 1, 2, 2, 3, 3, 4}};
  for (const auto& starts : groups)
    for (const int head_dim : {16, 32, 128})
      for (const int ranks : {1, 2, 4, 8}) {
        const int dim = starts.back() * head_dim;
        const size_t stride = 3 * dim + 5;
        const auto x = random_values(4 * stride, dim), weight = random_values(dim, 9);
        std::vector<float> whole = x;
        reference::rms_norm_heads(
            contexts()[0], {whole.data() + 5, stride, 4, head_dim, starts, weight.data(), 1e-6f});
        compare(joined("halves ", dim, " ", ranks), [&](const Context& c, bool fast) {
          return in_halves(c, fast, starts, ranks, head_dim, x, stride, weight);
        });
        EXPECT(
            same_bits(in_halves(contexts()[0], false, starts, ranks, head_dim, x, stride, weight),
                      whole),
            dim, " ", ranks);
      }
}

TEST("rope: q and k heads by the table, other columns untouched") {
  for (const int head_dim : {16, 32, 128}) {
    std::vector<float> table(200 * head_dim);
    rope_table(table.data(), 200, head_dim, 1e6);
    const std::vector<int32_t> positions = {0, 1, 7, 199, 63};
    const size_t stride = 4 * head_dim;
    const auto x = random_values(5 * stride, head_dim);
    compare(joined("rope ", head_dim), [&](const Context& c, bool fast) {
      std::vector<float> y = x;
      (fast ? rope : reference::rope)(
          c, {y.data(), stride, 5, 3, head_dim, positions.data(), table.data()});
      return y;
    });
  }
}

TEST("rope_table: angles are position · inv_freq rounded to f32") {
  constexpr int kDim = 128, kPositions = 4000;
  std::vector<float> table(kPositions * kDim);
  rope_table(table.data(), kPositions, kDim, 1e6);
  for (int p = 0; p < kPositions; p += 37)
    for (int i = 0; i < kDim / 2; ++i) {
      const float inv_freq = static_cast<float>(std::pow(1e6, -2.0 * i / kDim));
      const float angle = static_cast<float>(p) * inv_freq;
      const float* row = table.data() + static_cast<size_t>(p) * kDim;
      EXPECT(std::fabs(row[i] - std::cos(double{angle})) < 1e-6, p, " ", i);
      EXPECT(std::fabs(row[kDim / 2 + i] - std::sin(double{angle})) < 1e-6, p, " ", i);
    }
}

TEST("residual, with and without bias and scale") {
  for (const int dim : kDims)
    for (const int mode : {0, 1, 2, 3}) {
      const auto h = random_values(3 * dim, dim), y = random_values(3 * dim, 5);
      const auto bias = random_values(dim, 6), scale = random_values(dim, 7);
      compare(joined("residual ", dim, " ", mode), [&](const Context& c, bool fast) {
        std::vector<float> out = h;
        (fast ? residual : reference::residual)(c, out.data(), y.data(),
                                                mode & 1 ? bias.data() : nullptr,
                                                mode & 2 ? scale.data() : nullptr, 3, dim);
        return out;
      });
    }
}

TEST("silu_mul, gelu and add, large and small values too") {
  for (const int dim : kDims)
    for (const float size : {1e-4f, 1.0f, 60.0f}) {
      auto x = random_values(6 * dim, dim);
      for (float& value : x) value *= size;
      compare(joined("silu_mul ", dim), [&](const Context& c, bool fast) {
        std::vector<float> out(3 * dim);
        (fast ? silu_mul : reference::silu_mul)(c, out.data(), x.data(), 3, dim);
        return out;
      });
      compare(joined("gelu ", dim), [&](const Context& c, bool fast) {
        std::vector<float> out(x.size());
        const auto op = fast ? static_cast<decltype(&tessera::gelu)>(tessera::gelu)
                             : static_cast<decltype(&tessera::gelu)>(reference::gelu);
        op(c, out.data(), x.data(), x.size());
        return out;
      });
      compare(joined("add ", dim), [&](const Context& c, bool fast) {
        std::vector<float> out(x.begin(), x.begin() + 3 * dim);
        (fast ? add : reference::add)(c, out.data(), x.data() + 3 * dim, out.size());
        return out;
      });
    }
}

TEST("elementwise ops over many threads' borders") {
  const auto x = random_values(50001, 1);
  compare("gelu of 50001", [&](const Context& c, bool fast) {
    std::vector<float> out(x.size());
    const auto op = fast ? static_cast<decltype(&tessera::gelu)>(tessera::gelu)
                         : static_cast<decltype(&tessera::gelu)>(reference::gelu);
    op(c, out.data(), x.data(), x.size());
    return out;
  });
}

}  // namespace
}  // namespace tessera::testing
