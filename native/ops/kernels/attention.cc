// Attention over blocks of 32 positions: keys [head_dim][32], values [32][head_dim], in chunks of
// 256 positions.
#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "ops/kernels/kernels.h"
#include "ops/kernels/simd.h"

namespace tessera::TESSERA_NS {

namespace {

constexpr int kChunkBlocks = kAttentionChunk / kBlockTokens;
constexpr int kMaxHeadDim = 256;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Queries that read the same positions go together: keys and values are loaded, and widened, once.
// As many sums as the registers hold.
#if defined(TESSERA_KIND_AVX512)
constexpr int kMaxQueries = 4, kSums = 16;
#else
constexpr int kMaxQueries = 2, kSums = 4;
#endif

struct Query {
  const float* q;  // [head_dim]
  float* out;      // [head_dim]
};

// The running merge of one query: max, Σexp, Σexp·v.
struct Running {
  float max, sum;
  float out[kMaxHeadDim];
};

// Of one head; the scales are of int8 alone.
template <typename Element>
struct Block {
  const Element* keys;        // [head_dim][32]
  const Element* values;      // [32][head_dim]
  const float* key_scales;    // [32]
  const float* value_scales;  // [32]
};

template <typename Element>
Block<Element> block_at(const uint8_t* keys, int head_dim, size_t part_bytes) {
  const uint8_t* values = keys + part_bytes;
  const size_t scales = static_cast<size_t>(head_dim) * kBlockTokens * sizeof(Element);
  return {reinterpret_cast<const Element*>(keys), reinterpret_cast<const Element*>(values),
          reinterpret_cast<const float*>(keys + scales),
          reinterpret_cast<const float*>(values + scales)};
}

// Sixteen values as f32. Scales of other types than int8 are not read.
template <typename Element>
V16 widened(const Element* p, V16 scale) {
  if constexpr (std::is_same_v<Element, int8_t>) return load(p) * scale;
  return load(p);
}
template <typename Element>
V16 scales_of(const float* scales) {
  if constexpr (std::is_same_v<Element, int8_t>) return load(scales);
  return splat(1.0f);
}
template <typename Element>
V16 scale_of(const float* scale) {
  if constexpr (std::is_same_v<Element, int8_t>) return splat(*scale);
  return splat(1.0f);
}

// Scores against a block: 32 values of each query, from scores[i][at].
template <int kQueries, typename Element>
void block_scores(float (*scores)[kAttentionChunk], int at, const Query* queries,
                  const Block<Element>& block, int head_dim, float scale) {
  const V16 low = scales_of<Element>(block.key_scales);
  const V16 high = scales_of<Element>(block.key_scales + 16);
  V16 a[kQueries], b[kQueries];
  for (int i = 0; i < kQueries; ++i) a[i] = b[i] = splat(0.0f);
  for (int d = 0; d < head_dim; ++d) {
    const V16 first = widened(block.keys + d * kBlockTokens, low);
    const V16 second = widened(block.keys + d * kBlockTokens + 16, high);
    for (int i = 0; i < kQueries; ++i) {
      const V16 value = splat(queries[i].q[d]);
      a[i] = fma(value, first, a[i]);
      b[i] = fma(value, second, b[i]);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    store(scores[i] + at, a[i] * splat(scale));
    store(scores[i] + at + 16, b[i] * splat(scale));
  }
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

template <int kQueries, int kVecs, typename Element>
void weigh_values(float* const* out, const float (*weights)[kAttentionChunk],
                  const Block<Element>* blocks, int head_dim, int column, Span span) {
  V16 acc[kQueries][kVecs];
  for (int i = 0; i < kQueries; ++i)
    for (int v = 0; v < kVecs; ++v) acc[i][v] = splat(0.0f);
  for (int p = span.first; p < span.end; ++p) {
    const Block<Element>& block = blocks[p / kBlockTokens];
    const int token = p % kBlockTokens;
    const Element* row = block.values + token * head_dim + column;
    const V16 scale = scale_of<Element>(block.value_scales + token);
    V16 w[kQueries];
    for (int i = 0; i < kQueries; ++i) w[i] = splat(weights[i][p]);
    for (int v = 0; v < kVecs; ++v) {
      const V16 value = widened(row + v * 16, scale);
      for (int i = 0; i < kQueries; ++i) acc[i][v] = fma(w[i], value, acc[i][v]);
    }
  }
  for (int i = 0; i < kQueries; ++i)
    for (int v = 0; v < kVecs; ++v) store(out[i] + column + v * 16, acc[i][v]);
}

// Columns from `column` on, the widest pieces first.
template <int kQueries, int kVecs, typename Element>
void chunk_values(float* const* out, const float (*weights)[kAttentionChunk],
                  const Block<Element>* blocks, int head_dim, int column, Span span) {
  for (; column + kVecs * 16 <= head_dim; column += kVecs * 16)
    weigh_values<kQueries, kVecs>(out, weights, blocks, head_dim, column, span);
  if constexpr (kVecs > 1)
    chunk_values<kQueries, kVecs / 2>(out, weights, blocks, head_dim, column, span);
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

// Queries against positions [range.first, range.end); their chunks are merged into `runs`, which
// are empty when `fresh`. block(i): block i of the positions.
template <int kQueries, typename Element, typename BlockAt>
void attend_range(Running* runs, bool fresh, const Query* queries, int head_dim, float scale,
                  Span range, BlockAt block) {
  alignas(64) float scores[kQueries][kAttentionChunk];
  alignas(64) float chunk_out[kQueries][kMaxHeadDim];
  Block<Element> blocks[kChunkBlocks];
  const int begin = range.first / kAttentionChunk * kAttentionChunk;
  for (int start = begin; start < range.end; start += kAttentionChunk) {
    const Span span{std::max(0, range.first - start), std::min(kAttentionChunk, range.end - start)};
    for (int b = span.first / kBlockTokens; b * kBlockTokens < span.end; ++b) {
      blocks[b] = block(start / kBlockTokens + b);
      block_scores<kQueries>(scores, b * kBlockTokens, queries, blocks[b], head_dim, scale);
    }
    float max[kQueries], sum[kQueries];
    float* targets[kQueries];
    for (int i = 0; i < kQueries; ++i) {
      max[i] = exponentials(scores[i], span.first, span.end, &sum[i]);
      targets[i] = fresh ? runs[i].out : chunk_out[i];
    }
    chunk_values<kQueries, kSums / kQueries>(targets, scores, blocks, head_dim, 0, span);
    for (int i = 0; i < kQueries; ++i) {
      if (!fresh) {
        merge(runs[i], max[i], sum[i], chunk_out[i], head_dim);
        continue;
      }
      runs[i].max = max[i];
      runs[i].sum = sum[i];
    }
    fresh = false;
  }
}

void divide(float* out, const Running& run, int head_dim) {
  for (int d = 0; d < head_dim; d += 16) store(out + d, load(run.out + d) / splat(run.sum));
}

// work<n>(first) for n queries at a time of [first, end), the most first.
template <int kQueries = kMaxQueries, typename Work>
void for_queries(int first, int end, const Work& work) {
  for (; first + kQueries <= end; first += kQueries) work.template operator()<kQueries>(first);
  if constexpr (kQueries > 1) for_queries<kQueries / 2>(first, end, work);
}

// The heads of row r that share key-value head kv, against the ranges of the row. Args: of either
// attention over the cache.
template <typename Element, typename Args>
void attend_ranges(const Args& args, int r, int kv, std::span<const CrossRange> ranges) {
  const CacheView& cache = args.cache;
  const size_t part = cache_part_bytes(cache.type, cache.head_dim);
  const uint8_t* data = static_cast<const uint8_t*>(cache.data);
  const int group = args.heads / cache.kv_heads;
  for_queries(kv * group, (kv + 1) * group, [&]<int kQueries>(int head) {
    Query queries[kQueries];
    for (int i = 0; i < kQueries; ++i)
      queries[i] = {args.q + r * args.q_stride + (head + i) * args.head_dim,
                    args.out + r * args.out_stride + (head + i) * args.head_dim};
    Running runs[kQueries];
    bool fresh = true;
    for (const CrossRange& range : ranges) {
      const auto block = [&](int index) {
        const size_t id = static_cast<size_t>(range.block_table[index]);
        return block_at<Element>(data + (id * cache.kv_heads + kv) * 2 * part, args.head_dim, part);
      };
      attend_range<kQueries, Element>(runs, fresh, queries, args.head_dim, args.scale,
                                      {range.first, range.end}, block);
      fresh = false;
    }
    for (int i = 0; i < kQueries; ++i) {
      if (ranges.empty()) {
        std::fill_n(queries[i].out, args.head_dim, 0.0f);
      } else {
        divide(queries[i].out, runs[i], args.head_dim);
      }
    }
  });
}

template <typename Element>
void attention_typed(const Context& context, const AttentionArgs& args) {
  context.pool->parallel_for(args.rows * args.cache.kv_heads, [&](int task) {
    const int r = task / args.cache.kv_heads;
    const CrossRange seen{args.row[r].block_table, 0, args.row[r].position + 1};
    attend_ranges<Element>(args, r, task % args.cache.kv_heads, {&seen, 1});
  });
}

template <typename Element>
void cross_typed(const Context& context, const CrossAttentionArgs& args) {
  context.pool->parallel_for(args.rows * args.cache.kv_heads, [&](int task) {
    const int r = task / args.cache.kv_heads;
    attend_ranges<Element>(args, r, task % args.cache.kv_heads, args.ranges[r]);
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

void attention(const Context& context, const AttentionArgs& args) {
  switch (args.cache.type) {
    case CacheType::kF32:
      return attention_typed<float>(context, args);
    case CacheType::kBf16:
      return attention_typed<uint16_t>(context, args);
    case CacheType::kInt8:
      return attention_typed<int8_t>(context, args);
  }
}

void cross_attention(const Context& context, const CrossAttentionArgs& args) {
  switch (args.cache.type) {
    case CacheType::kF32:
      return cross_typed<float>(context, args);
    case CacheType::kBf16:
      return cross_typed<uint16_t>(context, args);
    case CacheType::kInt8:
      return cross_typed<int8_t>(context, args);
  }
}

void vision_attention(const Context& context, const VisionAttentionArgs& args) {
  const int width = args.heads * args.head_dim;
  const size_t part = static_cast<size_t>(args.head_dim) * kBlockTokens;
  context.pool->parallel_for(args.tiles * args.heads, [&](int task) {
    static thread_local std::vector<float> blocks;
    const int tile = task / args.heads;
    const int head = task % args.heads;
    gather_head(blocks, args, tile, head);
    const auto block = [&](int index) -> Block<float> {
      const float* keys = blocks.data() + index * 2 * part;
      return {keys, keys + part, nullptr, nullptr};
    };
    for_queries(0, args.sequence, [&]<int kQueries>(int first) {
      Query queries[kQueries];
      for (int i = 0; i < kQueries; ++i) {
        const size_t row = static_cast<size_t>(tile) * args.sequence + first + i;
        queries[i] = {args.qkv + row * 3 * width + head * args.head_dim,
                      args.out + row * width + head * args.head_dim};
      }
      Running runs[kQueries];
      attend_range<kQueries, float>(runs, true, queries, args.head_dim, args.scale,
                                    {0, args.sequence}, block);
      for (int i = 0; i < kQueries; ++i) divide(queries[i].out, runs[i], args.head_dim);
    });
  });
}

}  // namespace tessera::TESSERA_NS
