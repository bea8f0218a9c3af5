// Attention over blocks of 32 positions: keys [head_dim][32], values [32][head_dim], in chunks of
// 256 positions.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/kernels/kernels.h"
#include "ops/kernels/simd.h"

namespace tessera::TESSERA_NS {

namespace {

constexpr int kChunkBlocks = kAttentionChunk / kBlockTokens;
constexpr int kMaxHeadDim = 256;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// The running merge of one query: max, Σexp, Σexp·v.
struct Running {
  float max, sum;
  float out[kMaxHeadDim];
};

// Scores of one query against a block: 32 values.
template <typename Element>
void block_scores(float* scores, const float* q, const Element* keys, int head_dim, float scale) {
  V16 a = splat(0.0f), b = splat(0.0f);
  for (int d = 0; d < head_dim; ++d) {
    const V16 value = splat(q[d]);
    a = fma(value, load(keys + d * kBlockTokens), a);
    b = fma(value, load(keys + d * kBlockTokens + 16), b);
  }
  store(scores, a * splat(scale));
  store(scores + 16, b * splat(scale));
}

// Turns scores of positions [first, end) of a chunk into exp(s − max), zero beside them; returns
// the max, and Σexp in `sum`. An added zero changes no sum: they are never −0.
float exponentials(float* scores, int first, int end, float* sum) {
  for (int i = first / 16 * 16; i < first; ++i) scores[i] = kNothing;
  for (int i = end; i < kAttentionChunk && i % 16 != 0; ++i) scores[i] = kNothing;
  float best = kNothing;
  for (int i = first; i < end; ++i) best = best > scores[i] ? best : scores[i];
  V16 total = splat(0.0f);
  for (int i = first / 16 * 16; i < end; i += 16) {
    const V16 e = exp(load(scores + i) - splat(best));
    store(scores + i, e);
    total = total + e;
  }
  *sum = fold(total);
  return best;
}

// Positions [first, end) of a chunk.
struct Span {
  int first, end;
};

template <int kVecs, typename Element>
void weigh_values(float* out, const float* weights, const Element* const* values, int head_dim,
                  int column, Span span) {
  V16 acc[kVecs];
  for (int v = 0; v < kVecs; ++v) acc[v] = splat(0.0f);
  for (int p = span.first; p < span.end; ++p) {
    const Element* row = values[p / kBlockTokens] + p % kBlockTokens * head_dim + column;
    const V16 w = splat(weights[p]);
    for (int v = 0; v < kVecs; ++v) acc[v] = fma(w, load(row + v * 16), acc[v]);
  }
  for (int v = 0; v < kVecs; ++v) store(out + column + v * 16, acc[v]);
}

template <typename Element>
void chunk_values(float* out, const float* weights, const Element* const* values, int head_dim,
                  Span span) {
  int d = 0;
  for (; d + 128 <= head_dim; d += 128) weigh_values<8>(out, weights, values, head_dim, d, span);
  for (; d + 64 <= head_dim; d += 64) weigh_values<4>(out, weights, values, head_dim, d, span);
  for (; d + 32 <= head_dim; d += 32) weigh_values<2>(out, weights, values, head_dim, d, span);
  for (; d < head_dim; d += 16) weigh_values<1>(out, weights, values, head_dim, d, span);
}

float exp_one(float x) {
  float lanes[16];
  store(lanes, exp(splat(x)));
  return lanes[0];
}

void merge(Running& run, float max, float sum, const float* out, int head_dim) {
  const float top = run.max > max ? run.max : max;
  const float a = exp_one(run.max - top);
  const float b = exp_one(max - top);
  run.max = top;
  run.sum = std::fma(run.sum, a, sum * b);
  for (int d = 0; d < head_dim; d += 16)
    store(run.out + d, fma(load(run.out + d), splat(a), load(out + d) * splat(b)));
}

// One query against positions [first, end); its chunks are merged into `run`, which is empty when
// `fresh`. block(i): keys of block i; values follow head_dim · 32 later.
template <typename Element, typename BlockAt>
void attend_range(Running& run, bool fresh, const float* q, int head_dim, float scale, Span range,
                  BlockAt block) {
  alignas(64) float scores[kAttentionChunk];
  alignas(64) float chunk_out[kMaxHeadDim];
  const Element* values[kChunkBlocks];
  const int begin = range.first / kAttentionChunk * kAttentionChunk;
  for (int start = begin; start < range.end; start += kAttentionChunk) {
    const Span span{std::max(0, range.first - start), std::min(kAttentionChunk, range.end - start)};
    for (int b = span.first / kBlockTokens; b * kBlockTokens < span.end; ++b) {
      const Element* keys = block(start / kBlockTokens + b);
      values[b] = keys + head_dim * kBlockTokens;
      block_scores(scores + b * kBlockTokens, q, keys, head_dim, scale);
    }
    float sum;
    const float max = exponentials(scores, span.first, span.end, &sum);
    float* target = fresh ? run.out : chunk_out;
    chunk_values(target, scores, values, head_dim, span);
    if (fresh) {
      run.max = max;
      run.sum = sum;
    } else {
      merge(run, max, sum, chunk_out, head_dim);
    }
    fresh = false;
  }
}

void divide(float* out, const Running& run, int head_dim) {
  for (int d = 0; d < head_dim; d += 16) store(out + d, load(run.out + d) / splat(run.sum));
}

// One query against positions 0 … count − 1.
template <typename Element, typename BlockAt>
void attend(float* out, const float* q, int head_dim, float scale, int count, BlockAt block) {
  Running run;
  attend_range<Element>(run, true, q, head_dim, scale, {0, count}, block);
  divide(out, run, head_dim);
}

// One query against the ranges of a row.
template <typename Element>
void attend_images(float* out, const float* q, const CrossAttentionArgs& args, int kv,
                   std::span<const CrossRange> ranges) {
  const size_t head_size = static_cast<size_t>(2) * args.head_dim * kBlockTokens;
  const Element* data = static_cast<const Element*>(args.cache.data);
  if (ranges.empty()) {
    std::fill_n(out, args.head_dim, 0.0f);
    return;
  }
  Running run;
  bool fresh = true;
  for (const CrossRange& range : ranges) {
    const auto block = [&](int index) {
      const size_t id = static_cast<size_t>(range.block_table[index]);
      return data + (id * args.cache.kv_heads + kv) * head_size;
    };
    attend_range<Element>(run, fresh, q, args.head_dim, args.scale, {range.first, range.end},
                          block);
    fresh = false;
  }
  divide(out, run, args.head_dim);
}

template <typename Element>
void cross_typed(const Context& context, const CrossAttentionArgs& args) {
  const int group = args.heads / args.cache.kv_heads;
  context.pool->parallel_for(args.rows * args.cache.kv_heads, [&](int task) {
    const int r = task / args.cache.kv_heads, kv = task % args.cache.kv_heads;
    for (int h = kv * group; h < (kv + 1) * group; ++h)
      attend_images<Element>(args.out + r * args.out_stride + h * args.head_dim,
                             args.q + r * args.q_stride + h * args.head_dim, args, kv,
                             args.ranges[r]);
  });
}

template <typename Element>
void attention_typed(const Context& context, const AttentionArgs& args) {
  const int group = args.heads / args.cache.kv_heads;
  const size_t head_size = static_cast<size_t>(2) * args.head_dim * kBlockTokens;
  const Element* data = static_cast<const Element*>(args.cache.data);
  context.pool->parallel_for(args.rows * args.cache.kv_heads, [&](int task) {
    const int r = task / args.cache.kv_heads;
    const int kv = task % args.cache.kv_heads;
    const AttentionRow& row = args.row[r];
    const auto block = [&](int index) {
      const size_t id = static_cast<size_t>(row.block_table[index]);
      return data + (id * args.cache.kv_heads + kv) * head_size;
    };
    for (int h = kv * group; h < (kv + 1) * group; ++h)
      attend<Element>(args.out + r * args.out_stride + h * args.head_dim,
                      args.q + r * args.q_stride + h * args.head_dim, args.head_dim, args.scale,
                      row.position + 1, block);
  });
}

template <typename Element>
void write_typed(const Context& context, const WriteCacheArgs& args) {
  const int head_dim = args.cache.head_dim;
  const size_t head_size = static_cast<size_t>(2) * head_dim * kBlockTokens;
  Element* data = static_cast<Element*>(args.cache.data);
  const auto put = [](Element& to, float value) {
    if constexpr (sizeof(Element) == sizeof(float)) {
      to = value;
    } else {
      to = to_bf16(value);
    }
  };
  context.pool->parallel_for(args.rows, [&](int r) {
    const size_t block = static_cast<size_t>(args.slots[r] / kBlockTokens);
    const int offset = static_cast<int>(args.slots[r] % kBlockTokens);
    for (int h = 0; h < args.cache.kv_heads; ++h) {
      Element* keys = data + (block * args.cache.kv_heads + h) * head_size;
      Element* values = keys + static_cast<size_t>(head_dim) * kBlockTokens + offset * head_dim;
      const float* k = args.k + r * args.stride + h * head_dim;
      const float* v = args.v + r * args.stride + h * head_dim;
      for (int d = 0; d < head_dim; ++d) put(keys[d * kBlockTokens + offset], k[d]);
      for (int d = 0; d < head_dim; ++d) put(values[d], v[d]);
    }
  });
}

// Keys and values of one head of a tile in the cache's block layout.
void gather_head(std::vector<float>& blocks, const VisionAttentionArgs& args, int tile, int head) {
  const int width = args.heads * args.head_dim;
  const size_t head_size = static_cast<size_t>(2) * args.head_dim * kBlockTokens;
  const int count = (args.sequence + kBlockTokens - 1) / kBlockTokens;
  blocks.assign(count * head_size, 0.0f);
  for (int p = 0; p < args.sequence; ++p) {
    const float* row = args.qkv + (static_cast<size_t>(tile) * args.sequence + p) * 3 * width +
                       head * args.head_dim;
    float* keys = blocks.data() + p / kBlockTokens * head_size;
    float* values = keys + args.head_dim * kBlockTokens + p % kBlockTokens * args.head_dim;
    for (int d = 0; d < args.head_dim; ++d)
      keys[d * kBlockTokens + p % kBlockTokens] = row[width + d];
    std::memcpy(values, row + 2 * width, args.head_dim * sizeof(float));
  }
}

}  // namespace

void write_cache(const Context& context, const WriteCacheArgs& args) {
  if (args.cache.type == CacheType::kF32) return write_typed<float>(context, args);
  write_typed<uint16_t>(context, args);
}

void attention(const Context& context, const AttentionArgs& args) {
  if (args.cache.type == CacheType::kF32) return attention_typed<float>(context, args);
  attention_typed<uint16_t>(context, args);
}

void cross_attention(const Context& context, const CrossAttentionArgs& args) {
  if (args.cache.type == CacheType::kF32) return cross_typed<float>(context, args);
  cross_typed<uint16_t>(context, args);
}

void vision_attention(const Context& context, const VisionAttentionArgs& args) {
  const int width = args.heads * args.head_dim;
  const size_t head_size = static_cast<size_t>(2) * args.head_dim * kBlockTokens;
  context.pool->parallel_for(args.tiles * args.heads, [&](int task) {
    static thread_local std::vector<float> blocks;
    const int tile = task / args.heads;
    const int head = task % args.heads;
    gather_head(blocks, args, tile, head);
    const auto block = [&](int index) { return blocks.data() + index * head_size; };
    for (int p = 0; p < args.sequence; ++p) {
      const size_t row = static_cast<size_t>(tile) * args.sequence + p;
      attend<float>(args.out + row * width + head * args.head_dim,
                    args.qkv + row * 3 * width + head * args.head_dim, args.head_dim, args.scale,
                    args.sequence, block);
    }
  });
}

}  // namespace tessera::TESSERA_NS
