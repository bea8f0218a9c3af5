// What the cache holds, byte by byte, and attention over it: shapes of heads, positions 0 … 600.
#include <limits>

#include "core/buffer.h"
#include "ops/cpu/reference.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

constexpr CacheType kTypes[] = {CacheType::kF32, CacheType::kBf16, CacheType::kInt8};
constexpr int kTokens = 601, kBlocks = 19;

struct Heads {
  int heads, kv, head_dim;
};
float scale_of(const Heads& of) { return 1.0f / std::sqrt(static_cast<float>(of.head_dim)); }
constexpr Heads kShapes[] = {{1, 1, 16}, {4, 2, 64},  {7, 1, 80}, {6, 2, 96},
                             {3, 3, 48}, {8, 1, 128}, {5, 1, 256}};

// One token's keys and values of all heads, then the next token's.
std::vector<float> random_tokens(const Heads& of) {
  return random_values(static_cast<size_t>(kTokens) * 2 * of.kv * of.head_dim, of.head_dim);
}

// Token p lies in block (p / 32) · 7 mod 19.
int block_of(int token) { return token / kBlockTokens * 7 % kBlocks; }

Buffer<uint8_t> written(const Context& context, CacheType type, const Heads& of,
                        const std::vector<float>& tokens, bool fast) {
  Buffer<uint8_t> cache(kBlocks * cache_block_bytes(type, of.kv, of.head_dim));
  std::vector<int64_t> slots;
  for (int p = 0; p < kTokens; ++p) slots.push_back(block_of(p) * kBlockTokens + p % kBlockTokens);
  const int width = of.kv * of.head_dim;
  (fast ? write_cache : reference::write_cache)(context, {{cache.data(), type, of.kv, of.head_dim},
                                                          tokens.data(),
                                                          tokens.data() + width,
                                                          static_cast<size_t>(2 * width),
                                                          kTokens,
                                                          slots.data()});
  return cache;
}

bool same_bytes(const Buffer<uint8_t>& a, const Buffer<uint8_t>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

// Rows of one sequence that see up to these positions.
const std::vector<int> kPositions = {0,   1,   15,  16,  30,  31,  32,  33,  63,  64, 127,
                                     200, 254, 255, 256, 257, 287, 511, 512, 513, 600};

std::vector<float> attended(const Context& context, CacheType type, const Heads& of,
                            Buffer<uint8_t>& cache, bool fast) {
  std::vector<int32_t> table;
  for (int p = 0; p < kTokens; p += kBlockTokens) table.push_back(block_of(p));
  std::vector<AttentionRow> rows;
  for (const int position : kPositions) rows.push_back({table.data(), position});
  const size_t width = static_cast<size_t>(of.heads) * of.head_dim;
  const auto q = random_values(rows.size() * width, 5);
  std::vector<float> out(rows.size() * width);
  (fast ? attention : reference::attention)(context, {out.data(),
                                                      q.data(),
                                                      width,
                                                      width,
                                                      {cache.data(), type, of.kv, of.head_dim},
                                                      static_cast<int>(rows.size()),
                                                      of.heads,
                                                      of.head_dim,
                                                      scale_of(of),
                                                      rows.data()});
  return out;
}

TEST("attention: the reference's bits for every type, shape of heads, and position up to 600") {
  for (const Heads& of : kShapes)
    for (const CacheType type : kTypes) {
      const auto tokens = random_tokens(of);
      Buffer<uint8_t> plain = written(contexts()[0], type, of, tokens, false);
      const auto wanted = attended(contexts()[0], type, of, plain, false);
      for (const Context& context : contexts()) {
        Buffer<uint8_t> cache = written(context, type, of, tokens, true);
        EXPECT(same_bytes(cache, plain), name_of(context), " ", of.head_dim);
        EXPECT(same_bits(attended(context, type, of, cache, true), wanted), name_of(context), ": ",
               of.heads, " heads of ", of.head_dim, ", type ", static_cast<int>(type));
      }
    }
}

// As ops.h lays it out, read without the kernels' own code.
struct Int8Block {
  const Buffer<uint8_t>& cache;
  Heads of;
  const uint8_t* part(int block, int head, int which) const {
    const size_t bytes = static_cast<size_t>(of.head_dim) * 32 + 32 * 4;
    return cache.data() + ((static_cast<size_t>(block) * of.kv + head) * 2 + which) * bytes;
  }
  float scale(int block, int head, int which, int offset) const {
    float value;
    std::memcpy(&value, part(block, head, which) + of.head_dim * 32 + offset * 4, sizeof(value));
    return value;
  }
  int whole(int block, int head, int which, int offset, int d) const {
    const int at = which == 0 ? d * 32 + offset : offset * of.head_dim + d;
    return static_cast<int8_t>(part(block, head, which)[at]);
  }
};

// work(value given, place in `tokens`, scale, integer) for each element of the cache.
template <typename Work>
void each_element(const Int8Block& block, const std::vector<float>& tokens, Work work) {
  const Heads& of = block.of;
  size_t at = 0;
  for (int p = 0; p < kTokens; ++p)
    for (const int which : {0, 1})
      for (int h = 0; h < of.kv; ++h)
        for (int d = 0; d < of.head_dim; ++d, ++at)
          work(tokens[at], at, block.scale(block_of(p), h, which, p % 32),
               block.whole(block_of(p), h, which, p % 32, d));
}

TEST("int8: attention reads float(integer) · scale, as from a cache of these values in f32") {
  for (const Heads& of : kShapes) {
    const auto tokens = random_tokens(of);
    const Context& context = contexts().back();
    Buffer<uint8_t> cache = written(context, CacheType::kInt8, of, tokens, true);
    std::vector<float> read(tokens.size());
    each_element({cache, of}, tokens, [&](float, size_t at, float scale, int whole) {
      read[at] = static_cast<float>(whole) * scale;
    });
    Buffer<uint8_t> wide = written(context, CacheType::kF32, of, read, true);
    EXPECT(same_bits(attended(context, CacheType::kInt8, of, cache, true),
                     attended(context, CacheType::kF32, of, wide, true)),
           of.heads, " heads of ", of.head_dim);
  }
}

TEST("int8: an element is off by half a scale at most, and the largest of a head has 127") {
  const Heads of{4, 2, 64};
  const auto tokens = random_tokens(of);
  Buffer<uint8_t> cache = written(contexts().back(), CacheType::kInt8, of, tokens, true);
  int off = 0, full = 0;
  each_element({cache, of}, tokens, [&](float given, size_t, float scale, int whole) {
    // Quotient and product are rounded once each: at most 127 · 2⁻²³ of a scale.
    const float error = std::fabs(static_cast<float>(whole) * scale - given);
    EXPECT(error <= scale * (0.5f + 127 * 0x1p-23f), given, " ", whole, " ", scale);
    off += error > 0 ? 1 : 0;
    full += whole == 127 || whole == -127 ? 1 : 0;
  });
  EXPECT(off > kTokens && full >= kTokens * 2 * of.kv, off, " ", full);
}

// The f32 cache's answer o and int8's o': a key is off by max|k| / 254 at most, so a score by δ =
// scale · Σ|q| · max|k| / 254 (max over the positions seen), a weight by a factor within e^±2δ; a
// value is off by max|v| / 254. So |o' − o| ≤ max|v| · (1 / 254 + e^2δ − 1), and sums of 600 terms
// round by less than 600 · 2⁻²³ · max|v|.
TEST("int8: attention is within the derived distance of the f32 cache's") {
  for (const Heads& of : kShapes) {
    const auto tokens = random_tokens(of);
    const Context& context = contexts().back();
    Buffer<uint8_t> narrow = written(context, CacheType::kInt8, of, tokens, true);
    Buffer<uint8_t> wide = written(context, CacheType::kF32, of, tokens, true);
    const auto got = attended(context, CacheType::kInt8, of, narrow, true);
    const auto wanted = attended(context, CacheType::kF32, of, wide, true);
    const auto q = random_values(got.size(), 5);
    float most = 0.0f;
    for (const float value : tokens) most = std::max(most, std::fabs(value));
    EXPECT(!same_bits(got, wanted), "nothing was rounded");
    for (size_t first = 0; first < got.size(); first += of.head_dim) {
      double size = 0.0;
      for (int d = 0; d < of.head_dim; ++d) size += std::fabs(q[first + d]);
      const double delta = scale_of(of) * size * most / 254;
      const double bound = most * (1.0 / 254 + std::expm1(2 * delta) + 600 * 0x1p-23);
      for (int d = 0; d < of.head_dim; ++d)
        EXPECT(std::fabs(got[first + d] - wanted[first + d]) <= bound, of.head_dim, " ", first);
    }
  }
}

// 16 values of a head, put as a token's keys and values of one head; scale and integers as stored.
struct Stored {
  float scale;
  std::vector<int> whole;
};
Stored stored(const Context& context, const std::vector<float>& x, bool fast, int which) {
  const Heads of{1, 1, 16};
  Buffer<uint8_t> cache(cache_block_bytes(CacheType::kInt8, 1, 16));
  const int64_t slot = 9;
  (fast ? write_cache : reference::write_cache)(
      context, {{cache.data(), CacheType::kInt8, 1, 16}, x.data(), x.data(), 16, 1, &slot});
  const Int8Block block{cache, of};
  Stored out{block.scale(0, 0, which, 9), {}};
  for (int d = 0; d < 16; ++d) out.whole.push_back(block.whole(0, 0, which, 9, d));
  return out;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();
constexpr float kMost = std::numeric_limits<float>::max();

TEST("int8: ties go to even, zeros have scale 0, what is not finite has no scale") {
  struct Row {
    std::vector<float> given;  // zeros follow
    float scale;
    std::vector<int> whole;  // zeros follow
  };
  const std::vector<Row> rows = {
      {{127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -127}, 1, {127, 0, 2, 2, 0, -2, -127}},
      {{254, 1, 3, -5}, 2, {127, 0, 2, -2}},
      {{}, 0, {}},
      {{-0.0f}, 0, {}},
      {{kTiny, -kTiny}, 0, {}},
      {{190 * kTiny, -190 * kTiny, kTiny}, kTiny, {127, -127, 1}},
      {{kMost, -kMost, kMost / 2}, kMost / 127, {127, -127, 63}},
      {{1, kInfinity}, kNan, {}},
      {{-kInfinity, 1}, kNan, {}},
      {{1, 2, kNan}, kNan, {}},
      {{1, 2, -kNan}, kNan, {}},
  };
  for (Row row : rows) {
    row.given.resize(16);
    row.whole.resize(16);
    for (const Context& context : contexts())
      for (const bool fast : {false, true})
        for (const int which : {0, 1}) {
          const Stored got = stored(context, row.given, fast, which);
          EXPECT(std::memcmp(&got.scale, &row.scale, sizeof(float)) == 0, got.scale, " for ",
                 row.given[0]);
          EXPECT(got.whole == row.whole, name_of(context), ": ", row.given[0], " ", row.given[1]);
        }
  }
}

TEST("int8: a token with a value that is not finite is not finite for who sees it") {
  const Heads of{2, 1, 32};
  auto tokens = random_tokens(of);
  tokens[static_cast<size_t>(40) * 2 * 32 + 3] = kInfinity;
  for (const Context& context : contexts()) {
    Buffer<uint8_t> cache = written(context, CacheType::kInt8, of, tokens, true);
    const auto out = attended(context, CacheType::kInt8, of, cache, true);
    for (size_t row = 0; row < kPositions.size(); ++row)
      for (int d = 0; d < of.heads * of.head_dim; ++d)
        EXPECT(std::isnan(out[row * of.heads * of.head_dim + d]) == (kPositions[row] >= 40),
               name_of(context), " position ", kPositions[row]);
  }
}

}  // namespace
}  // namespace tessera::testing
