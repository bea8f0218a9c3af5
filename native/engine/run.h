// One pass through a program: its rows, its memory, its times. Kept and used again, so that a step
// allocates nothing here.
#pragma once

#include "engine/engine.h"

namespace tessera {

struct Engine::Run {
  const MemoryPlan* memory = nullptr;
  const Program* program = nullptr;
  uint64_t epoch = 0, step = 0, call = 0;
  Clock::time_point deadline;
  int tokens = 0, tiles = 0;
  std::vector<int32_t> ids, positions;
  std::vector<int64_t> slots;
  std::vector<AttentionRow> attention;
  std::vector<CrossRange> seen;                      // of all rows, one after another
  std::vector<std::pair<size_t, size_t>> seen_rows;  // by row: first and number in `seen`
  std::vector<std::span<const CrossRange>> ranges;   // by row; made when `seen` is whole
  std::vector<int> wanted_rows;                      // row of the batch
  std::vector<std::pair<const Slice*, const WantedRow*>> wanted;  // the same order
  std::vector<std::pair<int, const ImageRows*>> images;           // first row of the batch
  const std::vector<Mask>* masks = nullptr;                       // the plan's
  const EncodePlan* encode = nullptr;
  const std::vector<std::string>* capture = nullptr;
  StepOutcome outcome;
  CollectiveTimes times;
  bool profile = false;  // each op is timed, from `start` on
  Clock::time_point start;
  std::vector<OpTime> op_times;

  // Empties everything and takes the names of the next pass.
  void begin(const Program& of, const MemoryPlan& in, uint64_t of_epoch, uint64_t of_step) {
    program = &of;
    memory = &in;
    epoch = of_epoch;
    step = of_step;
    call = 0;
    tokens = tiles = 0;
    ids.clear();
    positions.clear();
    slots.clear();
    attention.clear();
    seen.clear();
    seen_rows.clear();
    ranges.clear();
    wanted_rows.clear();
    wanted.clear();
    images.clear();
    masks = nullptr;
    encode = nullptr;
    capture = nullptr;
    outcome = {};
    times = {};
    profile = false;
    op_times.clear();
  }
  void profile_from(Clock::time_point pass_start) {
    profile = true;
    start = pass_start;
  }
  void reserve(const PlacementSpec& placement) {
    const auto rows = static_cast<size_t>(placement.max_batched_tokens);
    ids.reserve(rows);
    positions.reserve(rows);
    slots.reserve(rows);
    attention.reserve(rows);
    wanted_rows.reserve(placement.max_wanted_rows);
    wanted.reserve(placement.max_wanted_rows);
  }
  int rows(const BufferSpec& buffer) const {
    // A pass over streams has their rows as its tokens.
    const Items items{tokens, static_cast<int>(wanted_rows.size()), tiles, tokens};
    return items.of(buffer.per) * buffer.rows;
  }
};

// A wanted row whose logits may be asked for again.
struct Engine::KeptRow {
  uint64_t step = 0, sequence_id = 0;
  int row = 0;
  HeadDraw draw{};
  const std::vector<VocabularyLane>* lanes = nullptr;
  std::vector<float> raw, processed;  // [columns]
};

// The best `count` candidates of a lane; raw and processed are the lane's own.
std::vector<HeadCandidate> lane_candidates(const Context& context, const VocabularyLane& lane,
                                           const float* raw, const float* processed,
                                           const HeadDraw& draw, int count);

}  // namespace tessera
