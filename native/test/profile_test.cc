// What a plan's `profile` tells of a pass: every op once, in order, with what it costs; and that it
// changes no bit.
#include "test/tiny_model.h"

namespace tessera::testing {
namespace {

const std::vector<int> kPrompt = {5, 80, 33, 2, 61, 17, 90, 44, 12};

StepPlan profiled(StepPlan plan) {
  plan.profile = true;
  return plan;
}

// Of every rank.
std::vector<StepOutcome> outcomes(TinyGroup& group, const StepPlan& plan) {
  std::vector<StepOutcome> out(group.size());
  group.all([&](Engine& engine, int rank) { out[rank] = engine.step(plan); });
  return out;
}

bool same(const StepOutcome& a, const StepOutcome& b) {
  if (a.rows.size() != b.rows.size()) return false;
  for (size_t r = 0; r < a.rows.size(); ++r) {
    if (a.rows[r].lanes.size() != b.rows[r].lanes.size()) return false;
    for (size_t l = 0; l < a.rows[r].lanes.size(); ++l) {
      const LaneResult &x = a.rows[r].lanes[l], &y = b.rows[r].lanes[l];
      if (x.best.token_id != y.best.token_id ||
          !same_bits({x.best.raw, x.best.scaled, x.raw.max, x.raw.sum},
                     {y.best.raw, y.best.scaled, y.raw.max, y.raw.sum}))
        return false;
    }
  }
  return true;
}

// Ops and collectives of a program in their order.
std::vector<std::pair<int, int>> places(const Program& program) {
  std::vector<std::pair<int, int>> out;
  for (size_t s = 0; s < program.segments.size(); ++s) {
    const Segment& segment = program.segments[s];
    const size_t count = segment.ops.size() + (segment.all_reduce < 0 ? 0 : 1);
    for (size_t i = 0; i < count; ++i) out.emplace_back(static_cast<int>(s), static_cast<int>(i));
  }
  return out;
}

void expect_whole(const std::vector<OpTime>& times, const Program& program, uint64_t total_ns) {
  const auto wanted = places(program);
  EXPECT(times.size() == wanted.size(), times.size(), " times of ", wanted.size());
  uint64_t end = 0, sum = 0;
  for (size_t i = 0; i < std::min(times.size(), wanted.size()); ++i) {
    const OpTime& time = times[i];
    EXPECT(time.segment == wanted[i].first && time.op == wanted[i].second, "op ", i);
    EXPECT(time.start_ns >= end && time.wait_ns <= time.ns, "op ", i, " begins within another");
    end = time.start_ns + time.ns;
    sum += time.ns;
  }
  EXPECT(sum > 0 && end <= total_ns, end, " of ", total_ns);
}

TEST("a profile tells of every op and collective once, in order, inside the step") {
  const TinyWeights weights;
  for (const int size : {1, 2}) {
    TinyGroup group(size);
    group.begin(1);
    const auto made = outcomes(group, profiled(tiny_step(1, kPrompt, 0, true)));
    for (int rank = 0; rank < size; ++rank)
      expect_whole(made[rank].op_times, tiny_spec(weights, rank, size).step,
                   made[rank].compute_ns + made[rank].wait_ns);
  }
}

TEST("a profile changes no bit, and without one nothing is told") {
  for (const int size : {1, 2}) {
    TinyGroup plain(size), watched(size);
    plain.begin(1);
    watched.begin(1);
    for (const StepPlan& plan : {tiny_step(1, kPrompt, 0, true), tiny_step(2, {7}, 9, false),
                                 tiny_step(3, {1}, 10, false)}) {
      const auto a = outcomes(plain, plan), b = outcomes(watched, profiled(plan));
      for (int rank = 0; rank < size; ++rank) {
        EXPECT(same(a[rank], b[rank]), size, " ranks, rank ", rank);
        EXPECT(a[rank].op_times.empty() && !b[rank].op_times.empty());
      }
    }
    EXPECT(outcomes(watched, tiny_step(4, {2}, 11, false))[0].op_times.empty(),
           "a profile ends with its step");
  }
}

// The first op of a kind.
OpTime time_of(const std::vector<OpTime>& times, const Program& program, OpKind kind) {
  for (const OpTime& time : times) {
    const auto& ops = program.segments[time.segment].ops;
    if (static_cast<size_t>(time.op) < ops.size() && ops[time.op].kind == kind) return time;
  }
  fail(__FILE__, __LINE__, "no such op");
  return {};
}

TEST("costs: weights once, rows read and written, the cache as far as it is seen") {
  const TinyWeights weights;
  const Program program = tiny_spec(weights, 0, 1).step;
  TinyGroup group(1);
  group.begin(1);
  const auto prefill = outcomes(group, profiled(tiny_step(1, kPrompt, 0, true)))[0].op_times;
  const auto decode = outcomes(group, profiled(tiny_step(2, {7}, 9, false)))[0].op_times;
  constexpr uint64_t kHeads = 4, kColumns = (kHeads + 2 * kTinyKv) * kTinyHeadDim;
  const uint64_t qkv = panel_bytes(kColumns, kTinyHidden);

  const OpTime many = time_of(prefill, program, OpKind::kLinear);
  EXPECT(many.rows == 9 && many.cost.flops == 2 * 9 * kColumns * kTinyHidden);
  EXPECT(many.cost.bytes == qkv + 9 * 4 * (kTinyHidden + kColumns), many.cost.bytes);
  const OpTime one = time_of(decode, program, OpKind::kLinear);
  EXPECT(one.rows == 1 && one.cost.bytes == qkv + 4 * (kTinyHidden + kColumns), one.cost.bytes);

  // Row r sees r + 1 positions; of keys and values the furthest row's are read once.
  const uint64_t position = 2 * kTinyKv * kTinyHeadDim * sizeof(float);
  const uint64_t row = 2 * kHeads * kTinyHeadDim * sizeof(float);  // queries and sums
  const OpTime seen = time_of(prefill, program, OpKind::kAttention);
  EXPECT(seen.cost.flops == 4 * 45 * kHeads * kTinyHeadDim, seen.cost.flops);
  EXPECT(seen.cost.bytes == 9 * row + 9 * position, seen.cost.bytes);
  const OpTime last = time_of(decode, program, OpKind::kAttention);
  EXPECT(last.cost.flops == 4 * 10 * kHeads * kTinyHeadDim, last.cost.flops);
  EXPECT(last.cost.bytes == row + 10 * position, last.cost.bytes);
}

TEST("costs: a bf16 cache has half the bytes") {
  const TinyWeights weights;
  const Program program = tiny_spec(weights, 0, 1).step;
  uint64_t bytes[2];
  for (const bool bf16 : {false, true}) {
    PlacementSpec placement = tiny_placement();
    placement.kv_type = bf16 ? CacheType::kBf16 : CacheType::kF32;
    TinyGroup group(1);
    group.begin(1, placement);
    const auto times = outcomes(group, profiled(tiny_step(1, kPrompt, 0, true)))[0].op_times;
    bytes[bf16] = time_of(times, program, OpKind::kAttention).cost.bytes;
  }
  EXPECT(bytes[0] - bytes[1] == 9 * kTinyKv * kTinyHeadDim * sizeof(float), bytes[0], bytes[1]);
}

TEST("an encode is profiled likewise, and gives the same embeddings") {
  const TinyWeights weights;
  const Program program = tiny_spec(weights, 0, 1).encode;
  TinyGroup group(1);
  group.begin(1);
  const auto pixels = random_values(3 * kTinyTile * kTinyTile, 3);
  EncodePlan plan{1, 1, 0, {{1, {}, pixels}}, {}};
  plan.profile = true;
  EncodeOutcome outcome;
  group.all([&](Engine& engine, int) { outcome = engine.encode(plan); });
  expect_whole(outcome.op_times, program, outcome.compute_ns);
  StepPlan with_image = tiny_step(1, kPrompt, 0, true);
  with_image.slices[0].image_rows = {{2, 1, 0, 4, 0}};
  const HeadCandidate watched = group.step(with_image);
  TinyGroup plain(1);
  plain.begin(1);
  plain.all([&](Engine& engine, int) { engine.encode({1, 1, 0, {{1, {}, pixels}}, {}}); });
  const HeadCandidate wanted = plain.step(with_image);
  EXPECT(watched.token_id == wanted.token_id && same_bits({watched.raw}, {wanted.raw}));
}

}  // namespace
}  // namespace tessera::testing
