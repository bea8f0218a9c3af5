#include <limits>

#include "ops/cpu/reference.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

bool same(const HeadCandidate& a, const HeadCandidate& b) {
  return a.token_id == b.token_id &&
         same_bits({a.raw, a.scaled, a.noise}, {b.raw, b.scaled, b.noise});
}

// Logits with equal values and forbidden ids among them.
std::vector<float> logits_with_ties(int count, uint32_t seed) {
  auto out = random_values(count, seed);
  for (int i = 0; i < count; ++i) {
    out[i] = std::round(out[i] * 8) / 8;
    if (i % 11 == 3) out[i] = kNoLogit;
  }
  return out;
}

TEST("head_best: greedy and drawn, ties and forbidden ids, lanes that begin anywhere") {
  for (const int count : {1, 15, 16, 63, 64, 65, 1000, 19000})
    for (const int first : {0, 64, 1003, 151552})
      for (const float temperature : {0.0f, 0.3f, 1.0f, 7.0f, 40.0f}) {
        const auto raw = random_values(count, 1);
        const auto processed = logits_with_ties(count, count + first);
        const HeadDraw draw{temperature, 0x123456789abcdefull + count, 5, 2};
        HeadCandidate wanted{}, got{};
        const bool some = reference::head_best(contexts()[0], raw.data(), processed.data(), first,
                                               count, draw, &wanted);
        for (const Context& context : contexts()) {
          const bool found =
              head_best(context, raw.data(), processed.data(), first, count, draw, &got);
          EXPECT(found == some && (!some || same(got, wanted)), name_of(context), ": ", count,
                 " from ", first, ", temperature ", temperature, ": ", got.token_id, " ",
                 wanted.token_id);
        }
      }
}

TEST("head_best: stretches of forbidden ids, and logits so far apart that most cannot win") {
  for (const float spread : {1.0f, 20.0f, 100.0f})
    for (const float temperature : {0.0f, 0.2f, 1.0f, 5.0f})
      for (uint32_t seed = 0; seed < 20; ++seed) {
        const int count = 3001, first = 64 * (seed % 3) + seed;
        const auto raw = random_values(count, seed);
        std::vector<float> processed = logits_with_ties(count, seed);
        for (int i = 0; i < count; ++i)
          processed[i] = (i / 150 + seed) % 3 == 0 ? processed[i] * spread : kNoLogit;
        const HeadDraw draw{temperature, seed * 977, seed, 0};
        HeadCandidate wanted{}, got{};
        reference::head_best(contexts()[0], raw.data(), processed.data(), first, count, draw,
                             &wanted);
        for (const Context& context : contexts()) {
          head_best(context, raw.data(), processed.data(), first, count, draw, &got);
          EXPECT(same(got, wanted), name_of(context), ": spread ", spread, ", temperature ",
                 temperature, ", seed ", seed, ": ", got.token_id, " ", wanted.token_id);
        }
      }
}

TEST("head_best: nothing is allowed") {
  const std::vector<float> raw(100, 1.0f), none(100, kNoLogit);
  for (const Context& context : contexts())
    for (const float temperature : {0.0f, 1.0f}) {
      HeadCandidate best{};
      const HeadDraw draw{temperature, 1, 0, 0};
      EXPECT(!head_best(context, raw.data(), none.data(), 0, 100, draw, &best));
      EXPECT(!head_best(context, raw.data(), raw.data(), 0, 0, draw, &best));
    }
}

TEST("head_best: a draw follows the distribution") {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  int counts[3] = {};
  constexpr int kDraws = 20000;
  for (uint32_t i = 0; i < kDraws; ++i) {
    HeadCandidate best{};
    head_best(contexts().back(), logits.data(), logits.data(), 0, 3, {1.0f, 99, i, 0}, &best);
    ++counts[best.token_id];
  }
  // Five standard deviations of a binomial with p (1 − p) ≤ ¼.
  const double limit = 5 * std::sqrt(kDraws * 0.25);
  const double wanted[3] = {0.5, 0.3, 0.2};
  for (int id = 0; id < 3; ++id)
    EXPECT(std::fabs(counts[id] - wanted[id] * kDraws) < limit, id, ": ", counts[id]);
}

TEST("head_log_sum and head_top are equal to their references") {
  for (const int count : {1, 15, 16, 17, 1000, 19000}) {
    const auto values = logits_with_ties(count, count);
    for (const float temperature : {0.0f, 0.7f, 3.0f}) {
      const LogSum wanted =
          reference::head_log_sum(contexts()[0], values.data(), count, temperature);
      for (const Context& context : contexts()) {
        const LogSum got = head_log_sum(context, values.data(), count, temperature);
        EXPECT(same_bits({got.max, got.sum}, {wanted.max, wanted.sum}), name_of(context));
      }
    }
    for (const int wanted : {1, 20, 256, 20000}) {
      std::vector<int32_t> a(wanted, -1), b(wanted, -1);
      const Context& context = contexts().back();
      const int n = head_top(context, values.data(), 500, count, wanted, a.data());
      EXPECT(n == reference::head_top(context, values.data(), 500, count, wanted, b.data()));
      EXPECT(a == b, count, " best ", wanted);
    }
  }
}

TEST("head_log_sum: no logit is allowed") {
  const std::vector<float> none(40, kNoLogit);
  for (const Context& context : contexts()) {
    const LogSum sum = head_log_sum(context, none.data(), 40, 1.0f);
    EXPECT(sum.max == kNoLogit && sum.sum == 0.0f);
  }
}

TEST("head_non_finite: one NaN or infinity at any place is found") {
  for (const int count : {1, 16, 17, 333})
    for (const int place : {0, count / 2, count - 1})
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
            -std::numeric_limits<float>::infinity()}) {
        auto values = random_values(count, 3);
        for (const Context& context : contexts())
          EXPECT(!head_non_finite(context, values.data(), count));
        values[place] = bad;
        for (const Context& context : contexts())
          EXPECT(head_non_finite(context, values.data(), count), name_of(context), " ", place);
      }
}

TEST("gumbel differs by seed, index, choice and id") {
  const float one = gumbel(1, 2, 3, 4);
  EXPECT(one != gumbel(2, 2, 3, 4) && one != gumbel(1, 3, 3, 4) && one != gumbel(1, 2, 4, 4) &&
         one != gumbel(1, 2, 3, 5));
}

}  // namespace
}  // namespace tessera::testing
