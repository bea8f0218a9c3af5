// Contracts and orders of sums: ops/ops.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/bf16.h"
#include "ops/cpu/reference.h"

namespace tessera::reference {

namespace {

// One element of the cache, whatever its type.
struct Cache {
  const CacheView& view;
  size_t key(int64_t block, int head, int d, int offset) const {
    return base(block, head) + static_cast<size_t>(d) * kBlockTokens + offset;
  }
  size_t value(int64_t block, int head, int d, int offset) const {
    const size_t keys = static_cast<size_t>(view.head_dim) * kBlockTokens;
    return base(block, head) + keys + static_cast<size_t>(offset) * view.head_dim + d;
  }
  float get(size_t at) const {
    if (view.type == CacheType::kF32) return static_cast<const float*>(view.data)[at];
    return from_bf16(static_cast<const uint16_t*>(view.data)[at]);
  }
  void put(size_t at, float value) const {
    if (view.type == CacheType::kF32) {
      static_cast<float*>(view.data)[at] = value;
    } else {
      static_cast<uint16_t*>(view.data)[at] = to_bf16(value);
    }
  }

 private:
  size_t base(int64_t block, int head) const {
    return (static_cast<size_t>(block) * view.kv_heads + head) * 2 * view.head_dim * kBlockTokens;
  }
};

struct Chunk {
  float max, sum;
  std::vector<float> out;
};

// Positions [first, first + count): max, Σexp and Σexp·v of one query.
template <typename Key, typename Value>
Chunk attend_chunk(const float* q, int head_dim, float scale, int first, int count, Key key,
                   Value value) {
  std::vector<float> scores(count);
  for (int i = 0; i < count; ++i) {
    float dot = 0.0f;
    for (int d = 0; d < head_dim; ++d) dot = std::fma(q[d], key(first + i, d), dot);
    scores[i] = dot * scale;
  }
  Chunk chunk{*std::max_element(scores.begin(), scores.end()), 0.0f,
              std::vector<float>(head_dim, 0.0f)};
  for (float& score : scores) score = exp(score - chunk.max);
  chunk.sum = sum16(count, [&](int i, float sum) { return sum + scores[i]; });
  for (int d = 0; d < head_dim; ++d)
    for (int i = 0; i < count; ++i)
      chunk.out[d] = std::fma(scores[i], value(first + i, d), chunk.out[d]);
  return chunk;
}

template <typename Key, typename Value>
void attend(float* out, const float* q, int head_dim, float scale, int count, Key key,
            Value value) {
  Chunk run = attend_chunk(q, head_dim, scale, 0, std::min(count, kAttentionChunk), key, value);
  for (int first = kAttentionChunk; first < count; first += kAttentionChunk) {
    const int size = std::min(kAttentionChunk, count - first);
    const Chunk next = attend_chunk(q, head_dim, scale, first, size, key, value);
    const float top = std::max(run.max, next.max);
    const float a = exp(run.max - top), b = exp(next.max - top);
    run.max = top;
    run.sum = std::fma(run.sum, a, next.sum * b);
    for (int d = 0; d < head_dim; ++d) run.out[d] = std::fma(run.out[d], a, next.out[d] * b);
  }
  for (int d = 0; d < head_dim; ++d) out[d] = run.out[d] / run.sum;
}

}  // namespace

void write_cache(const Context&, const WriteCacheArgs& args) {
  const Cache cache{args.cache};
  for (int r = 0; r < args.rows; ++r)
    for (int h = 0; h < args.cache.kv_heads; ++h)
      for (int d = 0; d < args.cache.head_dim; ++d) {
        const int64_t block = args.slots[r] / kBlockTokens;
        const int offset = static_cast<int>(args.slots[r] % kBlockTokens);
        const size_t at = r * args.stride + h * args.cache.head_dim + d;
        cache.put(cache.key(block, h, d, offset), args.k[at]);
        cache.put(cache.value(block, h, d, offset), args.v[at]);
      }
}

void attention(const Context&, const AttentionArgs& args) {
  const Cache cache{args.cache};
  const int group = args.heads / args.cache.kv_heads;
  for (int r = 0; r < args.rows; ++r)
    for (int h = 0; h < args.heads; ++h) {
      const int32_t* table = args.row[r].block_table;
      const int kv = h / group;
      const auto key = [&](int p, int d) {
        return cache.get(cache.key(table[p / kBlockTokens], kv, d, p % kBlockTokens));
      };
      const auto value = [&](int p, int d) {
        return cache.get(cache.value(table[p / kBlockTokens], kv, d, p % kBlockTokens));
      };
      attend(args.out + r * args.out_stride + h * args.head_dim,
             args.q + r * args.q_stride + h * args.head_dim, args.head_dim, args.scale,
             args.row[r].position + 1, key, value);
    }
}

void vision_attention(const Context&, const VisionAttentionArgs& args) {
  const int width = args.heads * args.head_dim;
  for (int row = 0; row < args.tiles * args.sequence; ++row)
    for (int h = 0; h < args.heads; ++h) {
      const float* tile =
          args.qkv + static_cast<size_t>(row / args.sequence) * args.sequence * 3 * width;
      const auto at = [&](int part, int p, int d) {
        return tile[static_cast<size_t>(p) * 3 * width + part * width + h * args.head_dim + d];
      };
      attend(
          args.out + static_cast<size_t>(row) * width + h * args.head_dim,
          args.qkv + static_cast<size_t>(row) * 3 * width + h * args.head_dim, args.head_dim,
          args.scale, args.sequence, [&](int p, int d) { return at(1, p, d); },
          [&](int p, int d) { return at(2, p, d); });
    }
}

}  // namespace tessera::reference
