// exp, erf, silu and gelu as vectors, against the single operations and against libm in double;
// log, sin and cos.
#include <bit>
#include <limits>

#include "core/math.h"
#include "core/philox.h"
#include "ops/cpu/reference.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

// Every 997th float, and what is special.
std::vector<float> all_sizes() {
  std::vector<float> out = {0.0f,
                            -0.0f,
                            88.7f,
                            88.72283f,
                            100.0f,
                            -87.3f,
                            -87.33654f,
                            -103.9f,
                            0.927734375f,
                            std::numeric_limits<float>::max(),
                            -std::numeric_limits<float>::max(),
                            std::numeric_limits<float>::denorm_min()};
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 99991) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (std::isfinite(value)) out.push_back(value);
  }
  return out;
}

// gelu and silu_mul show the vector functions; both references use the single operations.
TEST("vector exp and erf are the single operations over all sizes of numbers") {
  std::vector<float> x;
  for (const float value : all_sizes())
    if (std::fabs(value) < 1e18f) x.push_back(value);
  for (const Context& context : contexts()) {
    std::vector<float> got(x.size()), wanted(x.size());
    gelu(context, got.data(), x.data(), x.size());
    for (size_t i = 0; i < x.size(); ++i) wanted[i] = reference::gelu(x[i]);
    EXPECT(same_bits(got, wanted), "gelu, ", name_of(context));
    std::vector<float> pairs;
    for (const float value : x) pairs.insert(pairs.end(), {value, 1.0f});
    silu_mul(context, got.data(), pairs.data(), static_cast<int>(x.size()), 1);
    for (size_t i = 0; i < x.size(); ++i) wanted[i] = reference::silu(x[i]);
    EXPECT(same_bits(got, wanted), "silu, ", name_of(context));
  }
}

TEST("exp is within 1.2 units in the last place, erf within 1.5") {
  for (float x = -87.0f; x < 88.6f; x += 0.0137f) {
    const double wanted = std::exp(double{x});
    EXPECT(std::fabs(reference::exp(x) - wanted) < 1.2 * wanted * 0x1p-23, x);
  }
  for (float x = -6.0f; x < 6.0f; x += 0.00137f) {
    const double wanted = std::erf(double{x});
    EXPECT(std::fabs(reference::erf(x) - wanted) <= 1.5 * std::fabs(wanted) * 0x1p-23, x);
  }
}

TEST("exp: nothing below −87.3, no infinity at 88.7, NaN stays NaN") {
  EXPECT(reference::exp(-std::numeric_limits<float>::infinity()) == 0.0f);
  EXPECT(reference::exp(-87.31f) == 0.0f);
  EXPECT(std::isfinite(reference::exp(88.7f)));
  EXPECT(std::isnan(reference::exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST("log, exp, sin and cos in double agree with libm") {
  for (double x = 1e-6; x < 1e6; x *= 1.07)
    EXPECT(std::fabs(log_f64(x) - std::log(x)) < 1e-13 * (1 + std::fabs(std::log(x))), x);
  for (double x = -30; x < 30; x += 0.37)
    EXPECT(std::fabs(exp_f64(x) / std::exp(x) - 1) < 1e-13, x);
  for (double x = 0; x < 40000; x += 3.7) {
    double s, c;
    sin_cos_f64(x, &s, &c);
    EXPECT(std::fabs(s - std::sin(x)) < 1e-9 && std::fabs(c - std::cos(x)) < 1e-9, x);
  }
}

// The head skips logarithms by bounds of upper bits; this is what makes the bounds true.
TEST("gumbel noise rises with its word and is finite") {
  float last = -std::numeric_limits<float>::infinity();
  bool rises = true;
  for (uint32_t word = 0; word < (1u << 23); ++word) {
    const float noise = gumbel_of_word(word << 9);
    rises = rises && noise >= last && std::isfinite(noise);
    last = noise;
  }
  EXPECT(rises);
}

// Known answers of Random123's kat_vectors for philox4x32-10.
TEST("philox4x32-10 gives the published answers") {
  using Words = std::array<uint32_t, 4>;
  EXPECT((philox({0, 0, 0, 0}, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT((philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffff, 0xffffffff) ==
          Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT((philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
          Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

}  // namespace
}  // namespace tessera::testing
