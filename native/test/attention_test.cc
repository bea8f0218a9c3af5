#include "core/buffer.h"
#include "ops/cpu/reference.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

constexpr int kHeads = 4, kKv = 2;
constexpr CacheType kTypes[] = {CacheType::kF32, CacheType::kBf16, CacheType::kInt8};

// A sequence of `length` tokens whose blocks lie backwards in the cache.
struct Data {
  int length, head_dim, width;
  std::vector<float> qkv;
  std::vector<int32_t> table;
  std::vector<int64_t> slots;
  std::vector<AttentionRow> rows;

  Data(int length, int head_dim)
      : length(length), head_dim(head_dim), width((kHeads + 2 * kKv) * head_dim) {
    qkv = random_values(static_cast<size_t>(length) * width, length + head_dim);
    table.resize((length + kBlockTokens - 1) / kBlockTokens);
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(table.size() - 1 - i);
    for (int p = 0; p < length; ++p) {
      slots.push_back(static_cast<int64_t>(table[p / kBlockTokens]) * kBlockTokens +
                      p % kBlockTokens);
      rows.push_back({table.data(), p});
    }
  }

  // The cache written in pieces of `chunk` tokens and each piece attended at once.
  std::vector<float> run(const Context& context, CacheType type, int chunk, bool fast) const {
    Buffer<uint8_t> cache(table.size() * cache_block_bytes(type, kKv, head_dim));
    std::vector<float> out(static_cast<size_t>(length) * kHeads * head_dim);
    const CacheView view{cache.data(), type, kKv, head_dim};
    for (int first = 0; first < length; first += chunk) {
      const int count = std::min(chunk, length - first);
      const float* row = qkv.data() + static_cast<size_t>(first) * width;
      (fast ? write_cache : reference::write_cache)(
          context, {view, row + kHeads * head_dim, row + (kHeads + kKv) * head_dim,
                    static_cast<size_t>(width), count, slots.data() + first});
      (fast ? attention : reference::attention)(
          context, {out.data() + static_cast<size_t>(first) * kHeads * head_dim, row,
                    static_cast<size_t>(kHeads * head_dim), static_cast<size_t>(width), view, count,
                    kHeads, head_dim, 0.25f, rows.data() + first});
    }
    return out;
  }
};

TEST("attention and write_cache: the reference's bits with every type, whole and in chunks") {
  for (const int head_dim : {16, 48, 128})
    for (const int length : {1, 31, 32, 33, 256, 257, 530}) {
      const Data data(length, head_dim);
      for (const CacheType type : kTypes) {
        const auto wanted = data.run(contexts()[0], type, length, false);
        for (const Context& context : contexts())
          for (const int chunk : {length, 1 + length / 3})
            EXPECT(same_bits(data.run(context, type, chunk, true), wanted), name_of(context), ": ",
                   length, " tokens, heads of ", head_dim, ", chunks of ", chunk);
      }
    }
}

TEST("attention: close to a softmax in double") {
  constexpr int kLength = 600, kDim = 32;
  const Data data(kLength, kDim);
  const auto out = data.run(contexts().back(), CacheType::kF32, kLength, true);
  const float* q = data.qkv.data() + static_cast<size_t>(kLength - 1) * data.width + 3 * kDim;
  std::vector<double> sum(kDim, 0.0);
  double total = 0.0;
  for (int p = 0; p < kLength; ++p) {
    const float* k = data.qkv.data() + static_cast<size_t>(p) * data.width + (kHeads + 1) * kDim;
    double score = 0.0;
    for (int d = 0; d < kDim; ++d) score += double{q[d]} * k[d];
    const double weight = std::exp(score * 0.25);
    total += weight;
    for (int d = 0; d < kDim; ++d) sum[d] += weight * k[kKv * kDim + d];
  }
  // 600 terms of f32 with weights that sum to 1: well below 600 · 2⁻²⁴ · max|v|, about 1e-4.
  const float* got = out.data() + (static_cast<size_t>(kLength) * kHeads - 1) * kDim;
  for (int d = 0; d < kDim; ++d) EXPECT(std::fabs(got[d] - sum[d] / total) < 1e-4, d);
}

TEST("vision_attention: the reference's bits, one and several tiles") {
  for (const int head_dim : {16, 32, 128})
    for (const int sequence : {1, 17, 65, 257, 300}) {
      const int tiles = 1 + sequence % 3, heads = 3, width = heads * head_dim;
      const auto qkv =
          random_values(static_cast<size_t>(tiles) * sequence * 3 * width, sequence + head_dim);
      const auto run = [&](const Context& context, bool fast) {
        std::vector<float> out(static_cast<size_t>(tiles) * sequence * width);
        (fast ? vision_attention : reference::vision_attention)(
            context, {out.data(), qkv.data(), tiles, sequence, heads, head_dim, 0.125f});
        return out;
      };
      const auto wanted = run(contexts()[0], false);
      for (const Context& context : contexts())
        EXPECT(same_bits(run(context, true), wanted), name_of(context), ": ", sequence);
    }
}

}  // namespace
}  // namespace tessera::testing
