// Contracts and orders of sums: ops/ops.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/bf16.h"
#include "ops/cpu/reference.h"

namespace tessera::reference {

namespace {

// One head's keys (part 0) or values (part 1) in a block of the cache, whatever its type.
struct Part {
  CacheType type;
  uint8_t* data;
  int head_dim, part;

  Part(const CacheView& view, int64_t block, int head, int part)
      : type(view.type), head_dim(view.head_dim), part(part) {
    const size_t index = (static_cast<size_t>(block) * view.kv_heads + head) * 2 + part;
    data = static_cast<uint8_t*>(view.data) + index * cache_part_bytes(type, head_dim);
  }
  size_t at(int d, int offset) const {
    return part == 0 ? static_cast<size_t>(d) * kBlockTokens + offset
                     : static_cast<size_t>(offset) * head_dim + d;
  }
  float* scales() const {
    return reinterpret_cast<float*>(data + static_cast<size_t>(head_dim) * kBlockTokens);
  }
  float get(int d, int offset) const {
    if (type == CacheType::kF32) return reinterpret_cast<const float*>(data)[at(d, offset)];
    if (type == CacheType::kBf16)
      return from_bf16(reinterpret_cast<const uint16_t*>(data)[at(d, offset)]);
    const auto whole = static_cast<int8_t>(data[at(d, offset)]);
    return static_cast<float>(whole) * scales()[offset];
  }
  void put(const float* x, int offset) const {
    if (type == CacheType::kInt8) return put_int8(x, offset);
    for (int d = 0; d < head_dim; ++d) {
      if (type == CacheType::kF32) {
        reinterpret_cast<float*>(data)[at(d, offset)] = x[d];
      } else {
        reinterpret_cast<uint16_t*>(data)[at(d, offset)] = to_bf16(x[d]);
      }
    }
  }

 private:
  void put_int8(const float* x, int offset) const {
    float peak = 0.0f;
    bool finite = true;
    for (int d = 0; d < head_dim; ++d) {
      peak = std::max(peak, std::fabs(x[d]));
      finite = finite && std::isfinite(x[d]);
    }
    const float scale = finite ? peak / 127.0f : std::numeric_limits<float>::quiet_NaN();
    scales()[offset] = scale;
    for (int d = 0; d < head_dim; ++d) {
      const float whole = scale > 0.0f ? std::nearbyint(x[d] / scale) : 0.0f;
      data[at(d, offset)] =
          static_cast<uint8_t>(static_cast<int8_t>(std::min(127.0f, std::max(-127.0f, whole))));
    }
  }
};

struct Chunk {
  float max, sum;
  std::vector<float> out;
};

// Positions [first, end) of the chunk that begins at `start`: max, Σexp and Σexp·v of one query.
template <typename Key, typename Value>
Chunk attend_chunk(const float* q, int head_dim, float scale, int start, int first, int end,
                   Key key, Value value) {
  Chunk chunk{kNoLogit, 0.0f, std::vector<float>(head_dim, 0.0f)};
  std::vector<float> scores(end);
  for (int i = first; i < end; ++i) {
    float dot = 0.0f;
    for (int d = 0; d < head_dim; ++d) dot = std::fma(q[d], key(start + i, d), dot);
    scores[i] = dot * scale;
    chunk.max = std::max(chunk.max, scores[i]);
  }
  for (int i = first; i < end; ++i) scores[i] = exp(scores[i] - chunk.max);
  chunk.sum = sum16(end, [&](int i, float sum) { return i < first ? sum : sum + scores[i]; });
  for (int d = 0; d < head_dim; ++d)
    for (int i = first; i < end; ++i)
      chunk.out[d] = std::fma(scores[i], value(start + i, d), chunk.out[d]);
  return chunk;
}

Chunk merged(const Chunk& run, const Chunk& next) {
  const float top = std::max(run.max, next.max);
  const float a = exp(run.max - top), b = exp(next.max - top);
  Chunk out{top, std::fma(run.sum, a, next.sum * b), run.out};
  for (size_t d = 0; d < out.out.size(); ++d) out.out[d] = std::fma(run.out[d], a, next.out[d] * b);
  return out;
}

// Chunks of positions [first, end), in rising order behind those that are there.
template <typename Key, typename Value>
void add_chunks(std::vector<Chunk>& chunks, const float* q, int head_dim, float scale, int first,
                int end, Key key, Value value) {
  for (int start = first / kAttentionChunk * kAttentionChunk; start < end; start += kAttentionChunk)
    chunks.push_back(attend_chunk(q, head_dim, scale, start, std::max(0, first - start),
                                  std::min(kAttentionChunk, end - start), key, value));
}

void write_merged(float* out, const std::vector<Chunk>& chunks, int head_dim) {
  if (chunks.empty()) return void(std::fill_n(out, head_dim, 0.0f));
  Chunk run = chunks[0];
  for (size_t i = 1; i < chunks.size(); ++i) run = merged(run, chunks[i]);
  for (int d = 0; d < head_dim; ++d) out[d] = run.out[d] / run.sum;
}

template <typename Key, typename Value>
void attend(float* out, const float* q, int head_dim, float scale, int count, Key key,
            Value value) {
  std::vector<Chunk> chunks;
  add_chunks(chunks, q, head_dim, scale, 0, count, key, value);
  write_merged(out, chunks, head_dim);
}

}  // namespace

void write_cache(const Context&, const WriteCacheArgs& args) {
  for (int r = 0; r < args.rows; ++r)
    for (int h = 0; h < args.cache.kv_heads; ++h) {
      const int64_t block = args.slots[r] / kBlockTokens;
      const int offset = static_cast<int>(args.slots[r] % kBlockTokens);
      const size_t at = r * args.stride + h * args.cache.head_dim;
      Part(args.cache, block, h, 0).put(args.k + at, offset);
      Part(args.cache, block, h, 1).put(args.v + at, offset);
    }
}

void attention(const Context&, const AttentionArgs& args) {
  const int group = args.heads / args.cache.kv_heads;
  for (int r = 0; r < args.rows; ++r)
    for (int h = 0; h < args.heads; ++h) {
      const auto element = [&](int part, int p, int d) {
        const int32_t block = args.row[r].block_table[p / kBlockTokens];
        return Part(args.cache, block, h / group, part).get(d, p % kBlockTokens);
      };
      attend(
          args.out + r * args.out_stride + h * args.head_dim,
          args.q + r * args.q_stride + h * args.head_dim, args.head_dim, args.scale,
          args.row[r].position + 1, [&](int p, int d) { return element(0, p, d); },
          [&](int p, int d) { return element(1, p, d); });
    }
}

void cross_attention(const Context&, const CrossAttentionArgs& args) {
  for (int r = 0; r < args.rows; ++r)
    for (int h = 0; h < args.heads; ++h) {
      const int kv = h / (args.heads / args.cache.kv_heads);
      const float* q = args.q + r * args.q_stride + h * args.head_dim;
      std::vector<Chunk> chunks;
      for (const CrossRange& range : args.ranges[r]) {
        const auto element = [&](int part, int p, int d) {
          const int32_t block = range.block_table[p / kBlockTokens];
          return Part(args.cache, block, kv, part).get(d, p % kBlockTokens);
        };
        add_chunks(
            chunks, q, args.head_dim, args.scale, range.first, range.end,
            [&](int p, int d) { return element(0, p, d); },
            [&](int p, int d) { return element(1, p, d); });
      }
      write_merged(args.out + r * args.out_stride + h * args.head_dim, chunks, args.head_dim);
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
