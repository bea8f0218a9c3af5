#include "cache/sequences.h"

#include <algorithm>

#include "ops/ops.h"

namespace tessera {

void apply_slice(Sequence& sequence, const Slice& slice) {
  sequence.tokens.resize(slice.start_position, -1);
  sequence.tokens.insert(sequence.tokens.end(), slice.token_ids.begin(), slice.token_ids.end());
  if (slice.block_ids.empty()) return;
  sequence.blocks.resize(slice.first_block);
  sequence.blocks.insert(sequence.blocks.end(), slice.block_ids.begin(), slice.block_ids.end());
}

Mask runs_of_bits(const uint8_t* bits, size_t bytes) {
  Mask runs;
  int start = -1;  // of the run under way
  const int count = static_cast<int>(bytes) * 8;
  for (int id = 0; id < count; ++id) {
    const uint8_t byte = bits[id / 8];
    if (id % 8 == 0 && byte == (start < 0 ? 0x00 : 0xff)) {
      id += 7;
      continue;
    }
    const bool allowed = (byte >> (id % 8) & 1) != 0;
    if (allowed == (start >= 0)) continue;
    if (!allowed) runs.push_back({start, id - start});
    start = allowed ? id : -1;
  }
  if (start >= 0) runs.push_back({start, count - start});
  return runs;
}

namespace {

// The logits of one lane while its processors run, in the order bias, penalties, masks.
class Processor {
 public:
  Processor(float* logits, const ProcessArgs& args)
      : logits_(logits), args_(args), sampling_(args.sequence->sampling) {}

  void run() {
    for (const auto& [id, bias] : sampling_.logit_bias)
      if (has(id)) at(id) = at(id) + bias;
    penalties();
    masks();
  }

 private:
  bool has(int id) const { return id >= args_.first_id && id < args_.first_id + args_.count; }
  float& at(int id) { return logits_[id - args_.first_id]; }
  void forbid(int id) {
    if (has(id)) at(id) = kNoLogit;
  }

  void penalties() {
    const bool repeats = sampling_.repetition_penalty != 1.0f;
    if (!repeats && sampling_.presence_penalty == 0.0f && sampling_.frequency_penalty == 0.0f)
      return;
    std::map<int, std::pair<bool, int>>
        seen;  // id → in the prompt or the answer, times in the answer
    for (int i = 0; i < args_.length; ++i) {
      const int id = args_.sequence->tokens[i];
      if (!has(id)) continue;
      seen[id].first = true;
      if (i >= args_.sequence->prompt_length) ++seen[id].second;
    }
    for (const auto& [id, state] : seen) {
      float& value = at(id);
      if (repeats)
        value =
            value > 0 ? value / sampling_.repetition_penalty : value * sampling_.repetition_penalty;
      if (state.second == 0) continue;
      value = value - sampling_.frequency_penalty * static_cast<float>(state.second);
      value = value - sampling_.presence_penalty;
    }
  }

  void masks() {
    keep_runs();
    keep_allowed();
    for (const std::vector<int>& word : sampling_.bad_words)
      if (ends_with(word)) forbid(word.back());
    const int made = args_.length - args_.sequence->prompt_length;
    if (made < sampling_.min_tokens)
      for (const int id : sampling_.suppressed_token_ids) forbid(id);
    for (int id = std::max(args_.first_id, args_.selectable_ids); id < args_.first_id + args_.count;
         ++id)
      at(id) = kNoLogit;
  }

  void keep_runs() {
    if (args_.mask == nullptr) return;
    int id = args_.first_id;
    const int end = args_.first_id + args_.count;
    auto run = std::partition_point(
        args_.mask->begin(), args_.mask->end(),
        [&](const MaskRun& before) { return before.start + before.count <= id; });
    for (; run != args_.mask->end() && run->start < end; ++run) {
      if (run->start > id) std::fill(&at(id), &at(id) + (run->start - id), kNoLogit);
      id = std::min(run->start + run->count, end);
    }
    std::fill(&at(id), &at(id) + (end - id), kNoLogit);
  }

  void keep_allowed() {
    if (sampling_.allowed_token_ids.empty()) return;
    std::vector<float> kept(args_.count, kNoLogit);
    for (const int id : sampling_.allowed_token_ids)
      if (has(id)) kept[id - args_.first_id] = at(id);
    std::copy(kept.begin(), kept.end(), logits_);
  }

  // Whether the answer so far ends with all but the last token of the word.
  bool ends_with(const std::vector<int>& word) const {
    const int before = static_cast<int>(word.size()) - 1;
    if (before < 0 || args_.length - before < args_.sequence->prompt_length) return before == 0;
    return std::equal(word.begin(), word.end() - 1,
                      args_.sequence->tokens.begin() + (args_.length - before));
  }

  float* logits_;
  const ProcessArgs& args_;
  const SamplingSpec& sampling_;
};

}  // namespace

void process_logits(float* processed, const float* raw, const ProcessArgs& args) {
  std::copy_n(raw, args.count, processed);
  Processor(processed, args).run();
}

}  // namespace tessera
