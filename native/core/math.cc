#include "core/math.h"

#include <cmath>
#include <numbers>

namespace tessera {

namespace {

constexpr double kLn2High = 6.93147180369123816490e-01;
constexpr double kLn2Low = 1.90821492927058770002e-10;
// π/2 in two parts; the first has 33 bits, so that n · high is exact for n < 2²⁰.
constexpr double kHalfPiHigh = 1.57079632673412561417e+00;
constexpr double kHalfPiLow = 6.07710050650619224932e-11;

}  // namespace

// ln x = 2 atanh((m − 1) / (m + 1)) + e ln 2 with m in [√½, √2).
double log_f64(double x) {
  int exponent;
  double m = std::frexp(x, &exponent);
  if (m < std::numbers::sqrt2 / 2) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double sum = 0.0;
  for (int n = 25; n >= 3; n -= 2) sum = (sum + 1.0 / n) * z;
  const double tail = 2.0 * s * sum;
  return exponent * kLn2High + (2.0 * s + (tail + exponent * kLn2Low));
}

double exp_f64(double x) {
  const double n = std::nearbyint(x / std::numbers::ln2);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double sum = 1.0;
  for (int i = 16; i >= 1; --i) sum = 1.0 + sum * r / i;
  return std::ldexp(sum, static_cast<int>(n));
}

void sin_cos_f64(double angle, double* sin, double* cos) {
  const double n = std::nearbyint(angle / (std::numbers::pi / 2));
  const double r = (angle - n * kHalfPiHigh) - n * kHalfPiLow;
  const double z = r * r;
  double s = 1.0, c = 1.0;
  for (int i = 19; i >= 3; i -= 2) s = 1.0 - s * z / (i * (i - 1));
  for (int i = 20; i >= 2; i -= 2) c = 1.0 - c * z / (i * (i - 1));
  s *= r;
  const long quadrant = static_cast<long>(n) & 3;
  *sin = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
  *cos = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}

// Beyond 20 the difference to ±1 is below f32's precision.
float tanh_f32(float x) {
  if (x > 20.0f) return 1.0f;
  if (x < -20.0f) return -1.0f;
  const double e = exp_f64(2.0 * static_cast<double>(x));
  return static_cast<float>((e - 1.0) / (e + 1.0));
}

float log_f32(float x) { return static_cast<float>(log_f64(x)); }

}  // namespace tessera
