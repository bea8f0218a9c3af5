// Activations as integers: groups of 32 of a row, one scale each (ops/ops.h, linear).
#pragma once

#include <bit>
#include <limits>

#include "ops/kernels/simd.h"
#include "ops/ops.h"

namespace tessera::TESSERA_NS {

// Of a chunk of rows, in a linear's scratch: the groups of all lanes one after another.
struct Integers {
  int8_t* q;        // [groups][rows][32]
  float* scales;    // [groups][rows]
  int32_t* totals;  // [groups][rows], sums of q
  size_t rows;
};

inline constexpr uint32_t kInfinityBits = 0x7f800000u;

#if defined(TESSERA_KIND_AVX512)

// Bits of the largest magnitude of 32 values; from kInfinityBits on one of them is not finite.
inline uint32_t largest_bits(const float* x) {
  const __m512i size = _mm512_set1_epi32(0x7fffffff);
  const __m512i a = _mm512_and_si512(_mm512_loadu_si512(x), size);
  const __m512i b = _mm512_and_si512(_mm512_loadu_si512(x + 16), size);
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(_mm512_max_epi32(a, b)));
}
inline __m512i to_integers(const float* x, __m512 scale) {
  const __m512i q = _mm512_cvtps_epi32(_mm512_div_ps(_mm512_loadu_ps(x), scale));
  return _mm512_max_epi32(_mm512_min_epi32(q, _mm512_set1_epi32(127)), _mm512_set1_epi32(-127));
}
// → the sum of the 32 integers. scale > 0.
inline int32_t round_group(int8_t* q, const float* x, float scale) {
  const __m512 all = _mm512_set1_ps(scale);
  const __m512i a = to_integers(x, all), b = to_integers(x + 16, all);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(a));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), _mm512_cvtepi32_epi8(b));
  return _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
}

#elif defined(TESSERA_KIND_AVX2)

inline uint32_t largest_bits(const float* x) {
  const __m256i size = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  for (int i = 0; i < kGroupInputs; i += 8) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    most = _mm256_max_epi32(most, _mm256_and_si256(bits, size));
  }
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
}
inline __m256i to_integers(const float* x, __m256 scale) {
  const __m256i q = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x), scale));
  return _mm256_max_epi32(_mm256_min_epi32(q, _mm256_set1_epi32(127)), _mm256_set1_epi32(-127));
}
inline int32_t round_group(int8_t* q, const float* x, float scale) {
  const __m256 all = _mm256_set1_ps(scale);
  const __m256i a = to_integers(x, all), b = to_integers(x + 8, all);
  const __m256i c = to_integers(x + 16, all), d = to_integers(x + 24, all);
  // Packing goes by halves of 128 bits: fours of a, b, c, d alternate and are put in order.
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_permutevar8x32_epi32(bytes, order));
  const __m256i sums = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtsi128_si32(four);
}

#else

inline uint32_t largest_bits(const float* x) {
  uint32_t most = 0;
  for (int k = 0; k < kGroupInputs; ++k) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[k]) & 0x7fffffffu;
    most = bits > most ? bits : most;
  }
  return most;
}
inline int32_t round_group(int8_t* q, const float* x, float scale) {
  constexpr float kShift = 0x1.8p23f;  // adding it rounds to whole numbers, half to even
  int32_t total = 0;
  for (int k = 0; k < kGroupInputs; ++k) {
    const float v = x[k] / scale;
    const float within = v < -127.0f ? -127.0f : v > 127.0f ? 127.0f : v;
    const auto whole = static_cast<int32_t>((within + kShift) - kShift);
    q[k] = static_cast<int8_t>(whole);
    total += whole;
  }
  return total;
}

#endif

inline void quantise_group(const Integers& to, size_t at, const float* x) {
  int8_t* q = to.q + at * kGroupInputs;
  const uint32_t bits = largest_bits(x);
  const float scale = bits < kInfinityBits ? std::bit_cast<float>(bits) / 127.0f
                                           : std::numeric_limits<float>::quiet_NaN();
  to.scales[at] = scale;
  if (scale > 0.0f) {
    to.totals[at] = round_group(q, x, scale);
    return;
  }
  std::memset(q, 0, kGroupInputs);
  to.totals[at] = 0;
}

// `count` inputs, those missing to a whole group are 0.
inline void quantise_part(const Integers& to, size_t at, const float* x, int count) {
  if (count >= kGroupInputs) return quantise_group(to, at, x);
  float part[kGroupInputs] = {};
  std::memcpy(part, x, count * sizeof(float));
  quantise_group(to, at, part);
}

}  // namespace tessera::TESSERA_NS
