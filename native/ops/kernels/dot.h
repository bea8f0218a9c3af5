// Dot products of bytes: 16 outputs at a time, weights of panels against integers of activations.
// A dot has
//   Weights load(group, quad, v)   four inputs of outputs [16 v, 16 v + 16)
//   Sums start(total)              of a group; `total` is the sum of the activations' integers
//   void add(sums, weights, x)     four activations against them
//   V16 values(sums, total)        the group's dot products, exact
// Weights that are multiplied as unsigned bytes are above what they stand for by a shift; start or
// values takes it out by the total.
#pragma once

#include <bit>
#include <cmath>
#include <limits>

#include "core/f16.h"
#include "ops/kernels/simd.h"
#include "ops/ops.h"

namespace tessera::TESSERA_NS {

inline constexpr int kQuadBytes = 4 * kPanelOutputs;
inline constexpr int kInt4Shift = 8;

inline const uint8_t* int8_at(const uint8_t* group, int quad, int v) {
  return group + quad * kQuadBytes + v * 64;
}
// Two quads lie in the halves of the same bytes.
inline const uint8_t* int4_at(const uint8_t* group, int quad, int v) {
  return group + quad / 2 * kQuadBytes + v * 64;
}

#if defined(TESSERA_KIND_AVX512)

inline V16 load_f16(const uint8_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline __m512i spread(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, sizeof(four));
  return _mm512_set1_epi32(four);
}
inline __m512i load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline __m512i load_halves(const uint8_t* group, int quad, int v) {
  const __m512i both = load_bytes(int4_at(group, quad, v));
  const __m512i half = quad % 2 == 0 ? both : _mm512_srli_epi16(both, 4);
  return _mm512_and_si512(half, _mm512_set1_epi8(15));
}
inline V16 to_float(__m512i sums) { return {_mm512_cvtepi32_ps(sums)}; }

#if defined(TESSERA_VNNI)

template <int kShift>
struct VnniDot {
  using Weights = __m512i;
  using Sums = __m512i;
  static Sums start(int32_t total) { return _mm512_set1_epi32(-kShift * total); }
  static void add(Sums& sums, Weights w, const int8_t* x) {
    sums = _mm512_dpbusd_epi32(sums, w, spread(x));
  }
  static V16 values(Sums sums, int32_t) { return to_float(sums); }
};
struct Int8Dot : VnniDot<128> {
  static Weights load(const uint8_t* group, int quad, int v) {
    return _mm512_xor_si512(load_bytes(int8_at(group, quad, v)), _mm512_set1_epi8(-128));
  }
};
struct Int4Dot : VnniDot<kInt4Shift> {
  static Weights load(const uint8_t* group, int quad, int v) { return load_halves(group, quad, v); }
};

#else

// |w| unsigned, its sign at the activation: two products are at most 2 · 128 · 127 < 2¹⁵.
struct Int8Dot {
  struct Weights {
    __m512i size;
    __mmask64 negative;
  };
  using Sums = __m512i;
  static Weights load(const uint8_t* group, int quad, int v) {
    const __m512i w = load_bytes(int8_at(group, quad, v));
    return {_mm512_abs_epi8(w), _mm512_movepi8_mask(w)};
  }
  static Sums start(int32_t) { return _mm512_setzero_si512(); }
  static void add(Sums& sums, const Weights& w, const int8_t* x) {
    const __m512i all = spread(x);
    const __m512i turned = _mm512_mask_sub_epi8(all, w.negative, _mm512_setzero_si512(), all);
    const __m512i pairs = _mm512_maddubs_epi16(w.size, turned);
    sums = _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
  static V16 values(Sums sums, int32_t) { return to_float(sums); }
};
// A group's 16 products of a pair are at most 16 · 15 · 127 < 2¹⁵: sums stay i16 until its end.
struct Int4Dot {
  using Weights = __m512i;
  using Sums = __m512i;
  static Weights load(const uint8_t* group, int quad, int v) { return load_halves(group, quad, v); }
  static Sums start(int32_t) { return _mm512_setzero_si512(); }
  static void add(Sums& sums, Weights w, const int8_t* x) {
    sums = _mm512_add_epi16(sums, _mm512_maddubs_epi16(w, spread(x)));
  }
  static V16 values(Sums sums, int32_t total) {
    const __m512i wide = _mm512_madd_epi16(sums, _mm512_set1_epi16(1));
    return to_float(_mm512_sub_epi32(wide, _mm512_set1_epi32(kInt4Shift * total)));
  }
};

#endif

#elif defined(TESSERA_KIND_AVX2)

inline V16 load_f16(const uint8_t* p) {
  const auto* halves = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
inline __m256i spread(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, sizeof(four));
  return _mm256_set1_epi32(four);
}
struct Bytes {
  __m256i lo, hi;
};
inline Bytes load_bytes(const uint8_t* p) {
  const auto* halves = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
}
inline V16 to_float(__m256i lo, __m256i hi) {
  return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)};
}
inline __m256i add_pairs(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

// |w| unsigned, its sign at the activation: two products are at most 2 · 128 · 127 < 2¹⁵.
struct Int8Dot {
  using Weights = Bytes;
  using Sums = Bytes;
  static Weights load(const uint8_t* group, int quad, int v) {
    return load_bytes(int8_at(group, quad, v));
  }
  static Sums start(int32_t) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static __m256i dot(__m256i w, __m256i x) {
    return add_pairs(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
  }
  static void add(Sums& sums, const Weights& w, const int8_t* x) {
    const __m256i all = spread(x);
    sums.lo = _mm256_add_epi32(sums.lo, dot(w.lo, all));
    sums.hi = _mm256_add_epi32(sums.hi, dot(w.hi, all));
  }
  static V16 values(const Sums& sums, int32_t) { return to_float(sums.lo, sums.hi); }
};
// A group's 16 products of a pair are at most 16 · 15 · 127 < 2¹⁵: sums stay i16 until its end.
struct Int4Dot {
  using Weights = Bytes;
  using Sums = Bytes;
  static Weights load(const uint8_t* group, int quad, int v) {
    Bytes both = load_bytes(int4_at(group, quad, v));
    if (quad % 2 != 0) both = {_mm256_srli_epi16(both.lo, 4), _mm256_srli_epi16(both.hi, 4)};
    const __m256i low = _mm256_set1_epi8(15);
    return {_mm256_and_si256(both.lo, low), _mm256_and_si256(both.hi, low)};
  }
  static Sums start(int32_t) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static void add(Sums& sums, const Weights& w, const int8_t* x) {
    const __m256i all = spread(x);
    sums.lo = _mm256_add_epi16(sums.lo, _mm256_maddubs_epi16(w.lo, all));
    sums.hi = _mm256_add_epi16(sums.hi, _mm256_maddubs_epi16(w.hi, all));
  }
  static V16 values(const Sums& sums, int32_t total) {
    const __m256i shift = _mm256_set1_epi32(kInt4Shift * total);
    return to_float(_mm256_sub_epi32(add_pairs(sums.lo), shift),
                    _mm256_sub_epi32(add_pairs(sums.hi), shift));
  }
};

#else

inline V16 load_f16(const uint8_t* p) {
  return each([&](int i) {
    uint16_t half;
    std::memcpy(&half, p + i * sizeof(half), sizeof(half));
    return from_f16(half);
  });
}
struct Sixteen {
  int32_t v[16];
};
// Weights of four inputs, [16][4].
struct Quads {
  int16_t v[64];
};
struct PlainDot {
  using Weights = Quads;
  using Sums = Sixteen;
  static Sums start(int32_t) { return {}; }
  static void add(Sums& sums, const Weights& w, const int8_t* x) {
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < 4; ++k) sums.v[i] += w.v[4 * i + k] * x[k];
  }
};
struct Int8Dot : PlainDot {
  static Weights load(const uint8_t* group, int quad, int v) {
    const uint8_t* from = int8_at(group, quad, v);
    Quads out;
    for (int i = 0; i < 64; ++i) out.v[i] = static_cast<int8_t>(from[i]);
    return out;
  }
  static V16 values(const Sums& sums, int32_t) {
    return each([&](int i) { return static_cast<float>(sums.v[i]); });
  }
};
struct Int4Dot : PlainDot {
  static Weights load(const uint8_t* group, int quad, int v) {
    const uint8_t* from = int4_at(group, quad, v);
    Quads out;
    for (int i = 0; i < 64; ++i)
      out.v[i] = static_cast<int16_t>(quad % 2 == 0 ? from[i] & 15 : from[i] >> 4);
    return out;
  }
  static V16 values(const Sums& sums, int32_t total) {
    return each([&](int i) { return static_cast<float>(sums.v[i] - kInt4Shift * total); });
  }
};

#endif

}  // namespace tessera::TESSERA_NS
