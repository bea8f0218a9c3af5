// Keys and values of new tokens into their slots of the cache.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "ops/kernels/kernels.h"
#include "ops/kernels/simd.h"

namespace tessera::TESSERA_NS {

namespace {

constexpr int kMaxHeadDim = 256;

// One head's keys, or values, of one token: where they go, `step` elements apart.
template <typename Element>
struct Place {
  Element* to;
  int step;
  float* scale;  // of int8 alone
};

void put(const Place<float>& place, const float* x, int head_dim) {
  for (int d = 0; d < head_dim; ++d) place.to[d * place.step] = x[d];
}

void put(const Place<uint16_t>& place, const float* x, int head_dim) {
  for (int d = 0; d < head_dim; ++d) place.to[d * place.step] = to_bf16(x[d]);
}

// max|x| / 127; NaN where a value is not finite. Without their signs floats have the order of their
// bits.
float scale_of(const float* x, int head_dim) {
  uint32_t peak = 0;
  for (int d = 0; d < head_dim; ++d)
    peak = std::max(peak, std::bit_cast<uint32_t>(x[d]) & 0x7fffffffu);
  if (peak >= 0x7f800000u) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(peak) / 127.0f;
}

void put(const Place<int8_t>& place, const float* x, int head_dim) {
  const float scale = scale_of(x, head_dim);
  *place.scale = scale;
  float whole[kMaxHeadDim] = {};
  if (scale > 0.0f)
    for (int d = 0; d < head_dim; d += 16) {
      const V16 near = round_even(load(x + d) / splat(scale));
      store(whole + d, max(splat(-127.0f), min(splat(127.0f), near)));
    }
  for (int d = 0; d < head_dim; ++d) place.to[d * place.step] = static_cast<int8_t>(whole[d]);
}

template <typename Element>
void write_typed(const Context& context, const WriteCacheArgs& args) {
  const int head_dim = args.cache.head_dim, heads = args.cache.kv_heads;
  const size_t part = cache_part_bytes(args.cache.type, head_dim);
  const size_t scales = static_cast<size_t>(head_dim) * kBlockTokens * sizeof(Element);
  context.pool->parallel_for(args.rows, [&](int r) {
    const size_t block = static_cast<size_t>(args.slots[r] / kBlockTokens);
    const int offset = static_cast<int>(args.slots[r] % kBlockTokens);
    for (int h = 0; h < heads; ++h) {
      uint8_t* keys = static_cast<uint8_t*>(args.cache.data) + (block * heads + h) * 2 * part;
      uint8_t* values = keys + part;
      const Place<Element> key{reinterpret_cast<Element*>(keys) + offset, kBlockTokens,
                               reinterpret_cast<float*>(keys + scales) + offset};
      const Place<Element> value{reinterpret_cast<Element*>(values) + offset * head_dim, 1,
                                 reinterpret_cast<float*>(values + scales) + offset};
      put(key, args.k + r * args.stride + h * head_dim, head_dim);
      put(value, args.v + r * args.stride + h * head_dim, head_dim);
    }
  });
}

}  // namespace

void write_cache(const Context& context, const WriteCacheArgs& args) {
  switch (args.cache.type) {
    case CacheType::kF32:
      return write_typed<float>(context, args);
    case CacheType::kBf16:
      return write_typed<uint16_t>(context, args);
    case CacheType::kInt8:
      return write_typed<int8_t>(context, args);
  }
}

}  // namespace tessera::TESSERA_NS
