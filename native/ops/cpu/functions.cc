// Contracts and orders of sums: ops/ops.h.
#include <bit>
#include <cmath>
#include <cstdint>

#include "ops/cpu/reference.h"

namespace tessera::reference {

namespace {

// 2^n for whole n in [−126, 127]; of a NaN 1.
float exp2_whole(float n) {
  const int whole = std::isnan(n) ? 0 : static_cast<int>(n);
  return std::bit_cast<float>(static_cast<uint32_t>(whole + 127) << 23);
}

}  // namespace

// n = round(x · log2 e); r = x − n ln 2 in two parts; a polynomial of degree 7 in r; times 2^n in
// two factors.
float exp(float x) {
  constexpr float kLow = -87.3f, kHigh = 88.7f;
  const float below = kHigh < x ? kHigh : x;
  const float clamped = kLow > below ? kLow : below;
  const float n = std::nearbyint(clamped * 1.44269504088896341f);
  float r = std::fma(n, -0.693145751953125f, clamped);
  r = std::fma(n, -1.42860682030941723e-6f, r);
  constexpr float kTerms[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                              1.6666665459e-1f, 5.0000001201e-1f};
  float p = 1.9875691500e-4f;
  for (const float term : kTerms) p = std::fma(p, r, term);
  p = std::fma(p, r * r, r) + 1.0f;
  const float half = std::nearbyint(n * 0.5f);
  const float value = p * exp2_whole(half) * exp2_whole(n - half);
  return x < kLow ? 0.0f : value;
}

// Two polynomials with the border 0.927734375; beyond it 1 − exp of the first.
float erf(float x) {
  const float t = std::fabs(x), s = x * x;
  if (0.927734375f < t) {
    float p = std::fma(-1.72853470e-5f, t, 3.83197126e-4f);
    const float u = std::fma(-3.88396438e-3f, t, 2.42546219e-2f);
    p = std::fma(p, s, u);
    constexpr float kTerms[] = {-1.06777877e-1f, -6.34846687e-1f, -1.28717512e-1f};
    for (const float term : kTerms) p = std::fma(p, t, term);
    p = std::fma(p, t, 0.0f - t);
    const float value = 1.0f - exp(p);
    return x < 0.0f ? 0.0f - value : value;
  }
  constexpr float kTerms[] = {4.99119423e-3f, -2.67681349e-2f, 1.12819925e-1f, -3.76125336e-1f,
                              1.28379166e-1f};
  float p = -5.96761703e-4f;
  for (const float term : kTerms) p = std::fma(p, s, term);
  return std::fma(p, x, x);
}

float gelu(float x) { return 0.5f * x * (1.0f + erf(x * 0.707106781186547524f)); }

float silu(float x) { return x / (1.0f + exp(0.0f - x)); }

}  // namespace tessera::reference
