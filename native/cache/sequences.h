// What a rank knows of the sequences it computes: blocks, tokens, sampling state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

namespace tessera {

struct SamplingSpec {
  float temperature = 0;
  uint64_t seed = 0;
  uint32_t choice = 0;
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::pair<int, float>> logit_bias;
  std::vector<int> allowed_token_ids;
  std::vector<std::vector<int>> bad_words;
  int min_tokens = 0;
  std::vector<int> suppressed_token_ids;
};

struct SequenceOpen {
  uint64_t sequence_id;
  int prompt_length;
  std::vector<int> token_ids;
  SamplingSpec sampling;
};

struct ImageRows {
  int row;
  uint64_t embedding_id;
  int first_row, count, encoder_rank;
};

struct MaskRun {
  int start, count;
};

using Mask = std::vector<MaskRun>;  // rising, apart

// Bit id mod 8 of byte ⌊id / 8⌋ is set where the id is allowed.
Mask runs_of_bits(const uint8_t* bits, size_t bytes);

struct WantedRow {
  int row, candidates, top_logprobs;
  bool logprob;
  std::vector<int> scored_token_ids;
  int mask = 0;  // 1 + index of the plan's masks; 0: every id is allowed
};

// Rows of a slice that see the same ranges of images' streams, image by image.
struct SeenRange {
  uint64_t stream_id;
  int first, end;
};
struct SeenRows {
  int row, count;
  std::vector<SeenRange> ranges;
};

// An image's stream: rows of token embeddings (ids) and, where image rows say so, of a tile.
struct StreamOpen {
  uint64_t stream_id;
  std::vector<int> token_ids;  // −1: an image row
  std::vector<ImageRows> image_rows;
  std::vector<int> block_ids;  // of the cross cache
};
struct Stream {
  int rows = 0;
  std::vector<int32_t> blocks;
};

struct Slice {
  uint64_t sequence_id;
  int start_position;
  std::vector<int> token_ids;
  int first_block;
  std::vector<int> block_ids;
  std::vector<ImageRows> image_rows;
  std::vector<WantedRow> wanted;
  std::vector<SeenRows> seen = {};
};

struct Sequence {
  int prompt_length = 0;
  SamplingSpec sampling;
  std::vector<int> tokens;      // by position; −1: not known here
  std::vector<int32_t> blocks;  // block table
};

using Sequences = std::unordered_map<uint64_t, Sequence>;
using Streams = std::unordered_map<uint64_t, Stream>;

// Cuts the sequence back to the slice's start and appends its tokens and blocks.
void apply_slice(Sequence& sequence, const Slice& slice);

// A lane's logits after bias, penalties and masks; −inf where an id may not be chosen. `length`
// counts the tokens before the one to be chosen.
struct ProcessArgs {
  const Sequence* sequence;
  int length;
  const Mask* mask;  // null: every id is allowed
  int first_id, count, selectable_ids;
};
void process_logits(float* processed, const float* raw, const ProcessArgs& args);

}  // namespace tessera
