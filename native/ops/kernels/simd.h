// V16: sixteen f32 lanes, the width of a sum16. One source, three instances: TESSERA_NS is scalar,
// avx2 or avx512, and every operation rounds the same way in each.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/bf16.h"

#if defined(TESSERA_KIND_AVX512) || defined(TESSERA_KIND_AVX2)
#include <immintrin.h>
#endif

namespace tessera::TESSERA_NS {

#if defined(TESSERA_KIND_AVX512)

struct V16 {
  __m512 v;
};
inline V16 splat(float x) { return {_mm512_set1_ps(x)}; }
inline V16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, V16 a) { _mm512_storeu_ps(p, a.v); }
inline V16 load(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
inline V16 load(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}
inline V16 operator+(V16 a, V16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V16 operator-(V16 a, V16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V16 operator*(V16 a, V16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V16 operator/(V16 a, V16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V16 fma(V16 a, V16 b, V16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// a > b ? a : b, so that a NaN in b stays.
inline V16 max(V16 a, V16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline V16 min(V16 a, V16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline V16 round_even(V16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// 2^n for whole n in [−126, 127].
inline V16 exp2_whole(V16 n) {
  const __m512i bits = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 23))};
}
// Where a < b: x, elsewhere y.
inline V16 select_less(V16 a, V16 b, V16 x, V16 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
inline V16 abs(V16 a) { return {_mm512_abs_ps(a.v)}; }

#elif defined(TESSERA_KIND_AVX2)

struct V16 {
  __m256 lo, hi;
};
inline V16 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline V16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, V16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline __m256 widen(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline V16 load(const uint16_t* p) { return {widen(p), widen(p + 8)}; }
inline __m256 widen(const int8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
inline V16 load(const int8_t* p) { return {widen(p), widen(p + 8)}; }
inline V16 operator+(V16 a, V16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline V16 operator-(V16 a, V16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline V16 operator*(V16 a, V16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline V16 operator/(V16 a, V16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline V16 fma(V16 a, V16 b, V16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline V16 max(V16 a, V16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline V16 min(V16 a, V16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline V16 round_even(V16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}
inline __m256 exp2_half(__m256 n) {
  const __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}
inline V16 exp2_whole(V16 n) { return {exp2_half(n.lo), exp2_half(n.hi)}; }
inline V16 select_less(V16 a, V16 b, V16 x, V16 y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline V16 abs(V16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}

#else

struct V16 {
  float v[16];
};
template <typename F>
inline V16 each(F f) {
  V16 out;
  for (int i = 0; i < 16; ++i) out.v[i] = f(i);
  return out;
}
inline V16 splat(float x) {
  return each([&](int) { return x; });
}
inline V16 load(const float* p) {
  return each([&](int i) { return p[i]; });
}
inline V16 load(const uint16_t* p) {
  return each([&](int i) { return from_bf16(p[i]); });
}
inline V16 load(const int8_t* p) {
  return each([&](int i) { return static_cast<float>(p[i]); });
}
inline void store(float* p, V16 a) { std::memcpy(p, a.v, sizeof(a.v)); }
inline V16 operator+(V16 a, V16 b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline V16 operator-(V16 a, V16 b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline V16 operator*(V16 a, V16 b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline V16 operator/(V16 a, V16 b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline V16 fma(V16 a, V16 b, V16 c) {
  return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline V16 max(V16 a, V16 b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline V16 min(V16 a, V16 b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline V16 round_even(V16 a) {
  return each([&](int i) { return std::nearbyint(a.v[i]); });
}
inline V16 exp2_whole(V16 n) {
  return each([&](int i) {
    const float value = n.v[i];
    const int whole = value == value ? static_cast<int>(value) : 0;
    return std::bit_cast<float>(static_cast<uint32_t>(whole + 127) << 23);
  });
}
inline V16 select_less(V16 a, V16 b, V16 x, V16 y) {
  return each([&](int i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
}
inline V16 abs(V16 a) {
  return each([&](int i) { return std::fabs(a.v[i]); });
}

#endif

// The last step of a sum16: 8, 4, 2, 1.
inline float fold(V16 a) {
  float s[16];
  store(s, a);
  for (int width = 8; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) s[j] = s[j] + s[j + width];
  return s[0];
}

// The first `count` < 16 values; the rest is `fill`.
inline V16 load_part(const float* p, int count, float fill) {
  float part[16];
  for (int i = 0; i < 16; ++i) part[i] = i < count ? p[i] : fill;
  return load(part);
}
inline void store_part(float* p, V16 a, int count) {
  float part[16];
  store(part, a);
  for (int i = 0; i < count; ++i) p[i] = part[i];
}

// e^x, below 1 ulp off for results that are normal; 0 under −87.3, at most 2^127.99 above. NaN
// stays NaN.
inline V16 exp(V16 x) {
  const V16 low = splat(-87.3f);
  const V16 clamped = max(low, min(splat(88.7f), x));
  const V16 n = round_even(clamped * splat(1.44269504088896341f));
  V16 r = fma(n, splat(-0.693145751953125f), clamped);
  r = fma(n, splat(-1.42860682030941723e-6f), r);
  V16 p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + splat(1.0f);
  // Two factors: n may be 128.
  const V16 half = round_even(n * splat(0.5f));
  const V16 value = p * exp2_whole(half) * exp2_whole(n - half);
  return select_less(x, low, splat(0.0f), value);
}

// erf, about 1 ulp off; coefficients as N. Juffa's published minimax pair, border 0.927734375.
inline V16 erf(V16 a) {
  const V16 t = abs(a);
  const V16 s = a * a;
  V16 far = fma(splat(-1.72853470e-5f), t, splat(3.83197126e-4f));
  const V16 u = fma(splat(-3.88396438e-3f), t, splat(2.42546219e-2f));
  far = fma(far, s, u);
  far = fma(far, t, splat(-1.06777877e-1f));
  far = fma(far, t, splat(-6.34846687e-1f));
  far = fma(far, t, splat(-1.28717512e-1f));
  far = fma(far, t, splat(0.0f) - t);
  far = splat(1.0f) - exp(far);
  far = select_less(a, splat(0.0f), splat(0.0f) - far, far);
  V16 near = splat(-5.96761703e-4f);
  near = fma(near, s, splat(4.99119423e-3f));
  near = fma(near, s, splat(-2.67681349e-2f));
  near = fma(near, s, splat(1.12819925e-1f));
  near = fma(near, s, splat(-3.76125336e-1f));
  near = fma(near, s, splat(1.28379166e-1f));
  near = fma(near, a, a);
  return select_less(splat(0.927734375f), t, far, near);
}

inline V16 gelu_of(V16 x) {
  return splat(0.5f) * x * (splat(1.0f) + erf(x * splat(0.707106781186547524f)));
}

inline V16 silu_of(V16 x) { return x / (splat(1.0f) + exp(splat(0.0f) - x)); }

}  // namespace tessera::TESSERA_NS
