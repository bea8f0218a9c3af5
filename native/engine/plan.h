// Plans and results of an engine; the same fields as tessera.shard.v1.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "cache/sequences.h"
#include "engine/profile.h"
#include "ops/ops.h"

namespace tessera {

using Captured = std::map<std::string, std::vector<float>>;

struct TileInput {
  uint64_t embedding_id;
  std::vector<uint8_t> u8;  // [s, s, 3], or
  std::vector<float> f32;   // normalised [3, s, s]
};

struct EncodePlan {
  uint64_t epoch, encode_id;
  int deadline_ms;  // 0: the placement's
  std::vector<TileInput> tiles;
  std::vector<std::string> capture;
  bool profile = false;  // ops are timed
};

struct EncodeOutcome {
  uint64_t compute_ns = 0, exchange_bytes = 0;
  Captured captured;
  std::vector<OpTime> op_times = {};  // in the order of the ops, when the plan asks
};

// A block of the cache that becomes equal to another one, in all layers.
struct BlockCopy {
  int from, to;
};

struct StepPlan {
  uint64_t epoch, step_id, released_step;
  int deadline_ms;
  std::vector<SequenceOpen> opened;
  std::vector<uint64_t> closed_sequence_ids, released_embedding_ids;
  std::vector<Slice> slices;
  std::vector<std::string> capture;
  std::vector<StreamOpen> opened_streams;        // before the slices
  std::vector<uint64_t> closed_stream_ids = {};  // before the opened
  std::vector<BlockCopy> copied_blocks = {};     // before the slices, in order
  std::vector<Mask> masks = {};                  // of wanted rows, each once
  bool profile = false;                          // ops are timed
};

struct ScoredToken {
  int token_id;
  float raw;
};

struct LaneResult {
  int lane = 0;
  bool non_finite = false, has_best = false, has_raw = false, has_scaled = false;
  HeadCandidate best{};
  std::vector<HeadCandidate> candidates;
  std::vector<ScoredToken> top, scored;
  LogSum raw{}, scaled{};
};

struct RowResult {
  uint64_t sequence_id;
  int row;
  std::vector<LaneResult> lanes;
};

struct StepOutcome {
  std::vector<RowResult> rows;
  uint64_t compute_ns = 0, wait_ns = 0, collective_ns = 0, exchange_bytes = 0;
  Captured captured;
  std::vector<OpTime> op_times = {};  // in the order of the ops, when the plan asks
};

struct CandidateQuery {
  uint64_t step_id, sequence_id;
  int row, count;
};

}  // namespace tessera
