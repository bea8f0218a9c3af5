// Bias, penalties and masks, in that order, cut anywhere into lanes.
#include "cache/sequences.h"

#include <optional>
#include <random>

#include "ops/ops.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

constexpr int kIds = 20;

struct Case {
  Sequence sequence;
  std::optional<Mask> mask;
  int length = 6;
  int selectable = kIds;

  Case() {
    sequence.prompt_length = 3;
    sequence.tokens = {4, 5, 4, 7, 4, 7};
  }
  // Lanes of `lane` ids give what one lane of all gives.
  std::vector<float> run(int lane = kIds) const {
    std::vector<float> raw(kIds), out(kIds);
    for (int i = 0; i < kIds; ++i) raw[i] = static_cast<float>(i) - 6.0f;
    for (int first = 0; first < kIds; first += lane) {
      const int count = std::min(lane, kIds - first);
      process_logits(out.data() + first, raw.data() + first,
                     {&sequence, length, mask ? &*mask : nullptr, first, count, selectable});
    }
    return out;
  }
};

void expect_values(const Case& of, const std::map<int, float>& wanted, float (*rest)(int)) {
  const std::vector<float> whole = of.run();
  for (int id = 0; id < kIds; ++id) {
    const auto at = wanted.find(id);
    const float value = at == wanted.end() ? rest(id) : at->second;
    EXPECT(whole[id] == value, "id ", id, ": ", whole[id], ", must be ", value);
  }
  for (const int lane : {1, 3, 7}) EXPECT(of.run(lane) == whole, "lanes of ", lane);
}

float raw(int id) { return static_cast<float>(id) - 6.0f; }
float none(int) { return kNoLogit; }

TEST("nothing set: the logits stay; ids beyond the tokenizer are never chosen") {
  Case one;
  expect_values(one, {}, raw);
  one.selectable = 18;
  expect_values(one, {{18, kNoLogit}, {19, kNoLogit}}, raw);
}

TEST("penalties: repetition counts prompt and answer, presence and frequency the answer only") {
  Case one;
  one.sequence.sampling.repetition_penalty = 2.0f;
  // 4 and 5 are below zero: times 2; 7 is above: divided by 2.
  expect_values(one, {{4, -4.0f}, {5, -2.0f}, {7, 0.5f}}, raw);
  one.sequence.sampling.repetition_penalty = 1.0f;
  one.sequence.sampling.presence_penalty = 0.5f;
  one.sequence.sampling.frequency_penalty = 0.25f;
  // The answer is 7, 4, 7.
  expect_values(one, {{4, -2.0f - 0.25f - 0.5f}, {7, 1.0f - 0.5f - 0.5f}}, raw);
}

TEST("bias comes before the penalties") {
  Case one;
  one.sequence.sampling.logit_bias = {{7, -3.0f}, {9, 100.0f}};
  one.sequence.sampling.repetition_penalty = 2.0f;
  expect_values(one, {{4, -4.0f}, {5, -2.0f}, {7, -4.0f}, {9, 103.0f}}, raw);
}

TEST("only tokens before the row count") {
  Case one;
  one.length = 4;
  one.sequence.sampling.frequency_penalty = 1.0f;
  expect_values(one, {{7, 0.0f}}, raw);
}

TEST("runs_of_bits: every allowed id is in one run, at borders of bytes and at the end") {
  std::mt19937 random(7);
  for (const double share : {0.0, 0.05, 0.5, 0.95, 1.0})
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{2}, size_t{33}}) {
      std::vector<uint8_t> bits(bytes);
      std::vector<bool> wanted(bytes * 8), got(bytes * 8);
      for (size_t id = 0; id < wanted.size(); ++id) {
        wanted[id] = std::uniform_real_distribution<>()(random) < share;
        if (wanted[id]) bits[id / 8] |= 1 << (id % 8);
      }
      int end = -1;
      for (const MaskRun& run : runs_of_bits(bits.data(), bytes)) {
        EXPECT(run.start > end && run.count > 0, "run from ", run.start, " behind ", end);
        end = run.start + run.count;
        for (int id = run.start; id < end; ++id) got[id] = true;
      }
      EXPECT(got == wanted, bytes, " bytes, share ", share);
    }
}

TEST("allowed ids, stop ids before min_tokens, mask runs, bad words") {
  Case allowed;
  allowed.sequence.sampling.allowed_token_ids = {2, 19};
  expect_values(allowed, {{2, raw(2)}, {19, raw(19)}}, none);

  Case early;
  early.sequence.sampling.min_tokens = 4;
  early.sequence.sampling.suppressed_token_ids = {1, 8};
  expect_values(early, {{1, kNoLogit}, {8, kNoLogit}}, raw);
  early.sequence.sampling.min_tokens = 3;
  expect_values(early, {}, raw);

  Case masked;
  masked.mask = Mask{{2, 2}, {6, 1}, {18, 2}};
  expect_values(masked, {{2, raw(2)}, {3, raw(3)}, {6, raw(6)}, {18, raw(18)}, {19, raw(19)}},
                none);
  masked.mask = Mask{};
  expect_values(masked, {}, none);

  const uint8_t bits[] = {0x4c, 0x00, 0x0c};
  masked.mask = runs_of_bits(bits, sizeof bits);
  expect_values(masked, {{2, raw(2)}, {3, raw(3)}, {6, raw(6)}, {18, raw(18)}, {19, raw(19)}},
                none);

  Case words;
  words.sequence.sampling.bad_words = {{3}, {4, 7, 9}, {7, 4, 7, 10}, {5, 4, 7, 4, 7, 11}, {9, 12}};
  // The answer so far is 7 4 7: the third ends it; the fourth would reach into the prompt.
  expect_values(words, {{3, kNoLogit}, {9, kNoLogit}, {10, kNoLogit}}, raw);
}

TEST("apply_slice: cuts back to its start, appends tokens, replaces blocks from first_block on") {
  Sequence sequence;
  apply_slice(sequence, {1, 0, {4, 5, 6}, 0, {10, 11}, {}, {}});
  apply_slice(sequence, {1, 3, {7}, 0, {}, {}, {}});
  EXPECT(sequence.tokens == std::vector<int>({4, 5, 6, 7}));
  EXPECT(sequence.blocks == std::vector<int32_t>({10, 11}));
  apply_slice(sequence, {1, 2, {9, 9}, 1, {12}, {}, {}});
  EXPECT(sequence.tokens == std::vector<int>({4, 5, 9, 9}));
  EXPECT(sequence.blocks == std::vector<int32_t>({10, 12}));
}

}  // namespace
}  // namespace tessera::testing
