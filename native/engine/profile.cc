// Times and costs of single ops, where a plan asks for them.
#include "engine/profile.h"

#include <algorithm>
#include <map>

#include "engine/run.h"

namespace tessera {

namespace {

// Multiplications and additions of q·k and p·v, of one row and head_dim, for each row seen.
constexpr uint64_t kAttentionFlops = 4;

}  // namespace

Engine::ProfileMark Engine::profile_mark(const Run& run) const {
  if (!run.profile) return {};
  return {Clock::now(), run.times.wait_ns};
}

void Engine::note_op(Run& run, const Segment& segment, size_t op, const ProfileMark& mark) const {
  if (!run.profile) return;
  const Clock::time_point end = Clock::now();
  const auto ns = [](auto time) {
    return static_cast<uint64_t>(std::chrono::nanoseconds(time).count());
  };
  const bool collective = op == segment.ops.size();
  const int read = collective ? segment.all_reduce : segment.ops[op].x;
  OpTime time{};
  time.stream = run.program == &spec_.stream;
  time.segment = static_cast<int>(&segment - run.program->segments.data());
  time.op = static_cast<int>(op);
  time.rows = read < 0 ? 0 : run.rows(run.program->buffers[read]);
  time.start_ns = ns(mark.start - run.start);
  time.ns = ns(end - mark.start);
  time.wait_ns = run.times.wait_ns - mark.wait_ns;
  if (!collective) time.cost = op_cost(run, segment.ops[op]);
  run.op_times.push_back(time);
}

OpCost Engine::op_cost(const Run& run, const Op& op) const {
  const auto rows = [&](int id) {
    return static_cast<uint64_t>(run.rows(run.program->buffers[id]));
  };
  const auto bytes = [&](int id) {
    return id < 0 ? 0 : rows(id) * run.program->buffers[id].width * sizeof(float);
  };
  const uint64_t tokens = run.tokens, head_dim = op.head_dim;
  const uint64_t read_write = bytes(op.x) + bytes(op.out);
  switch (op.kind) {
    case OpKind::kLinear: {
      const WeightSpec& weight = run.program->weights[op.weight];
      const uint64_t inputs = rows(op.x) * weight.inputs;
      return {weight_bytes(weight) + inputs * sizeof(float) + bytes(op.out),
              2 * inputs * weight.outputs};
    }
    case OpKind::kAttention:
    case OpKind::kCrossAttention: {
      const OpCost seen = seen_cost(run, op);
      const uint64_t queries = tokens * op.heads * head_dim * sizeof(float);
      return {queries + bytes(op.out) + seen.bytes, seen.flops};
    }
    case OpKind::kVisionAttention:
      return {read_write, seen_cost(run, op).flops};
    case OpKind::kResidual:
    case OpKind::kGatedResidual:
      return {read_write + bytes(op.out), 0};
    case OpKind::kRmsNormHeads:
    case OpKind::kSumSquaresHeads:
    case OpKind::kScaleHeads:
    case OpKind::kNormEachHead: {
      const uint64_t heads = op.heads > 0 ? op.heads : op.group_starts.back();
      const uint64_t passes = op.kind == OpKind::kSumSquaresHeads ? 1 : 2;  // read, written
      return {passes * rows(op.x) * heads * head_dim * sizeof(float), 0};
    }
    case OpKind::kRope:
      return {2 * tokens * (op.heads + op.kv_heads) * head_dim * sizeof(float), 0};
    case OpKind::kWriteCache:
    case OpKind::kWriteCrossCache: {
      const bool cross = op.kind == OpKind::kWriteCrossCache;
      return {tokens * (2 * op.kv_heads * head_dim * sizeof(float) + cache_row_bytes(cross)), 0};
    }
    case OpKind::kEmbedTokens:
      return {bytes(op.out) + bytes(op.out) / 2, 0};  // the table is bf16
    case OpKind::kGatherRows:
      return {2 * bytes(op.out), 0};
    case OpKind::kSpliceImages: {
      uint64_t spliced = 0;
      for (const auto& [first, image] : run.images) spliced += image->count;
      return {2 * spliced * spec_.embedding_width * sizeof(float), 0};
    }
    case OpKind::kStoreEmbeddings:
      return {2 * bytes(op.x), 0};
    default:
      return {read_write, 0};
  }
}

// Keys and values of one position in one layer.
uint64_t Engine::cache_row_bytes(bool cross) const {
  const auto& layers = cross ? cross_cache_ : cache_;
  const uint64_t blocks = cross ? placement_.cross_block_count : placement_.block_count;
  return layers.empty() ? 0 : layers[0].bytes() / (blocks * kBlockTokens);
}

// Of what attention sees: each sequence's, or image's, keys and values once for all rows.
OpCost Engine::seen_cost(const Run& run, const Op& op) const {
  uint64_t pairs = 0, held = 0;
  std::map<const int32_t*, uint64_t> furthest;  // by block table
  if (op.kind == OpKind::kVisionAttention) {
    const uint64_t places = run.program->buffers[op.x].rows;
    pairs = run.tiles * places * places;
  } else if (op.kind == OpKind::kAttention) {
    for (const AttentionRow& row : run.attention) {
      const uint64_t seen = row.position + 1;
      pairs += seen;
      furthest[row.block_table] = std::max(furthest[row.block_table], seen);
    }
  } else {
    for (const auto& ranges : run.ranges)
      for (const CrossRange& range : ranges) {
        pairs += range.end - range.first;
        uint64_t& end = furthest[range.block_table];
        end = std::max<uint64_t>(end, range.end);
      }
  }
  for (const auto& [table, rows] : furthest) held += rows;
  return {held == 0 ? 0 : held * cache_row_bytes(op.kind == OpKind::kCrossAttention),
          kAttentionFlops * pairs * op.heads * op.head_dim};
}

}  // namespace tessera
