#include "core/buffer.h"
#include "ops/cpu/reference.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

constexpr int kKv = 2, kBlocks = 40;

// Streams of images in one cache of random keys and values, blocks in an order of their own.
struct Streams {
  int head_dim;
  CacheType type;
  Buffer<uint8_t> cache;
  std::vector<int32_t> order;

  Streams(int head_dim, CacheType type)
      : head_dim(head_dim), type(type), cache(kBlocks * cache_block_bytes(type, kKv, head_dim)) {
    const int rows = kBlocks * kBlockTokens, width = kKv * head_dim;
    const auto kv = random_values(static_cast<size_t>(rows) * 2 * width, head_dim);
    std::vector<int64_t> slots(rows);
    for (int row = 0; row < rows; ++row) slots[row] = row;
    reference::write_cache(contexts()[0], {view(), kv.data(), kv.data() + width,
                                           static_cast<size_t>(2 * width), rows, slots.data()});
    for (int i = 0; i < kBlocks; ++i) order.push_back((i * 17 + 5) % kBlocks);
  }
  CacheView view() { return {cache.data(), type, kKv, head_dim}; }
  // Of the image whose stream begins at block `first_block` of the order.
  CrossRange range(int first_block, int first, int end) const {
    return {order.data() + first_block, first, end};
  }
};

// Rows that see nothing, one tile, all of an image, several images, ranges over the borders of
// blocks and chunks.
std::vector<std::vector<CrossRange>> rows_of(const Streams& s) {
  return {{},
          {s.range(0, 0, 1)},
          {s.range(0, 0, 16)},
          {s.range(0, 16, 32)},
          {s.range(0, 5, 300)},
          {s.range(2, 255, 257)},
          {s.range(2, 256, 512)},
          {s.range(0, 0, 700), s.range(22, 0, 40)},
          {s.range(30, 31, 33), s.range(0, 511, 513), s.range(22, 0, 256)},
          {}};
}

std::vector<float> run(Streams& streams, int heads, const Context& context, bool fast, int first,
                       int count) {
  const auto lists = rows_of(streams);
  std::vector<std::span<const CrossRange>> ranges(lists.begin() + first,
                                                  lists.begin() + first + count);
  const int width = heads * streams.head_dim;
  const auto q = random_values(lists.size() * (width + 3), heads);
  std::vector<float> out(static_cast<size_t>(count) * width, 7.0f);
  (fast ? cross_attention : reference::cross_attention)(
      context, {out.data(), q.data() + static_cast<size_t>(first) * (width + 3),
                static_cast<size_t>(width), static_cast<size_t>(width + 3), streams.view(), count,
                heads, streams.head_dim, 0.2f, ranges.data()});
  return out;
}

TEST("cross_attention: the reference's bits, alone and among others, with every type") {
  for (const int head_dim : {16, 80, 128})
    for (const int heads : {2, 6, 16})
      for (const CacheType type : {CacheType::kF32, CacheType::kBf16, CacheType::kInt8}) {
        Streams streams(head_dim, type);
        const auto wanted = run(streams, heads, contexts()[0], false, 0, 10);
        for (const Context& context : contexts()) {
          EXPECT(same_bits(run(streams, heads, context, true, 0, 10), wanted), name_of(context));
          for (const int row : {0, 4, 8}) {
            const auto at = wanted.begin() + static_cast<ptrdiff_t>(row) * heads * head_dim;
            EXPECT(
                same_bits(run(streams, heads, context, true, row, 1), {at, at + heads * head_dim}),
                "row ", row);
          }
        }
      }
}

TEST("cross_attention: a row that sees nothing gets zero") {
  Streams streams(32, CacheType::kF32);
  const auto out = run(streams, 4, contexts().back(), true, 0, 1);
  EXPECT(same_bits(out, std::vector<float>(out.size(), 0.0f)));
}

TEST("cross_attention: one image seen whole is attention over its rows") {
  const auto q = random_values(4 * 32, 3);
  for (const CacheType type : {CacheType::kF32, CacheType::kInt8}) {
    Streams streams(32, type);
    for (const int length : {1, 33, 256, 600}) {
      std::vector<float> a(4 * 32), b(4 * 32);
      const CrossRange range = streams.range(0, 0, length);
      const std::span<const CrossRange> ranges(&range, 1);
      const AttentionRow row{range.block_table, length - 1};
      const Context& context = contexts().back();
      cross_attention(context,
                      {a.data(), q.data(), 128, 128, streams.view(), 1, 4, 32, 0.2f, &ranges});
      attention(context, {b.data(), q.data(), 128, 128, streams.view(), 1, 4, 32, 0.2f, &row});
      EXPECT(same_bits(a, b), length);
    }
  }
}

TEST("norm_each_head and gated_residual are equal to their references") {
  const CrossRange seen{nullptr, 0, 1};
  const std::vector<std::span<const CrossRange>> ranges = {{&seen, 1}, {}, {&seen, 1}};
  for (const int dim : {16, 32, 128, 208}) {
    const auto x = random_values(3 * 4 * dim, dim), y = random_values(3 * 4 * dim, 2);
    const auto weight = random_values(dim, 3), bias = random_values(4 * dim, 4);
    const float gate = 0.37f;
    for (const Context& context : contexts())
      for (const int mode : {0, 1, 2, 3}) {
        std::vector<float> a = x, b = x, c = x, d = x;
        norm_each_head(context,
                       {a.data(), static_cast<size_t>(4 * dim), 3, 4, dim, weight.data(), 1e-6f});
        reference::norm_each_head(
            context, {b.data(), static_cast<size_t>(4 * dim), 3, 4, dim, weight.data(), 1e-6f});
        EXPECT(same_bits(a, b), name_of(context), " ", dim);
        const GatedResidualArgs args{
            c.data(), y.data(),     mode & 1 ? bias.data() : nullptr, mode & 2 ? &gate : nullptr, 3,
            4 * dim,  ranges.data()};
        GatedResidualArgs plain = args;
        plain.h = d.data();
        gated_residual(context, args);
        reference::gated_residual(context, plain);
        EXPECT(same_bits(c, d), name_of(context), " ", mode);
        EXPECT(std::equal(c.begin() + 4 * dim, c.begin() + 8 * dim, x.begin() + 4 * dim));
      }
  }
}

}  // namespace
}  // namespace tessera::testing
