// One pass through a program: its rows, its memory, its times.
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
  std::vector<int> wanted_rows;                                   // row of the batch
  std::vector<std::pair<const Slice*, const WantedRow*>> wanted;  // the same order
  std::vector<std::pair<int, ImageRows>> images;                  // first row of the batch
  const EncodePlan* encode = nullptr;
  const std::vector<std::string>* capture = nullptr;
  StepOutcome outcome;
  CollectiveTimes times;

  int rows(const BufferSpec& buffer) const {
    const int items = buffer.per == Per::kToken    ? tokens
                      : buffer.per == Per::kWanted ? static_cast<int>(wanted_rows.size())
                                                   : tiles;
    return items * buffer.rows;
  }
};

// A wanted row whose logits may be asked for again.
struct Engine::KeptRow {
  uint64_t step, sequence_id;
  int row;
  HeadDraw draw;
  std::vector<VocabularyLane> lanes;
  std::vector<float> raw, processed;  // [columns]
};

// The best `count` candidates of a lane. Used by the head and by more_candidates.
std::vector<HeadCandidate> lane_candidates(const Context& context, const VocabularyLane& lane,
                                           const float* raw, const float* processed,
                                           const HeadDraw& draw, int count);

}  // namespace tessera
