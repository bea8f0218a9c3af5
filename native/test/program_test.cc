// Programs that cannot be are refused; buffers that live at once never share memory.
#include "test/tiny_model.h"

namespace tessera::testing {
namespace {

const TinyWeights& weights() {
  static const TinyWeights one;
  return one;
}

void refused(const char* part, const std::function<void(EngineSpec&)>& change) {
  EngineSpec spec = tiny_spec(weights(), 0, 1);
  change(spec);
  EXPECT_ERROR("INVALID_ARGUMENT", part, {
    check_program(spec.encode, spec, {Per::kTile});
    check_program(spec.step, spec, {Per::kToken, Per::kWanted});
  });
}

// Ops of the step program: segment 1 is splice, norm, qkv, rope, write, attention, projection; 2 is
// residual, gather, logits, head. Buffers: h, x, y, qkv, attention, wanted, logits.
Op& op_of(EngineSpec& spec, int segment, int at) { return spec.step.segments[segment].ops[at]; }

TEST("a program that is right passes") {
  for (const int size : {1, 2}) {
    const EngineSpec spec = tiny_spec(weights(), size - 1, size);
    check_program(spec.encode, spec, {Per::kTile});
    check_program(spec.step, spec, {Per::kToken, Per::kWanted});
  }
}

TEST("rows: a buffer of another kind or number of rows is refused by name") {
  refused("gather_rows: buffer h has 1 rows per token, must have 1 per wanted",
          [](EngineSpec& s) { op_of(s, 2, 1).out = 0; });
  refused("rows per tile have no place", [](EngineSpec& s) { s.step.buffers[1].per = Per::kTile; });
  refused("rms_norm: buffer x has 2 rows per token",
          [](EngineSpec& s) { s.step.buffers[1].rows = 2; });
  refused("linear: buffer logits has 1 rows per token",
          [](EngineSpec& s) { s.step.buffers[6].per = Per::kToken; });
  refused("attention: buffer attention has 1 rows per wanted",
          [](EngineSpec& s) { s.step.buffers[4].per = Per::kWanted; });
  refused("store_embeddings: buffer embeddings has 4 rows per tile, must have 5",
          [](EngineSpec& s) { s.embedding_rows = 5; });
  refused("patchify: buffer patches has 4 rows",
          [](EngineSpec& s) { s.encode.segments[0].ops[0].patch_size = 1; });
  refused("must have 0 per tile",
          [](EngineSpec& s) { s.encode.segments[0].ops[0].patch_size = 0; });
}

TEST("widths, weights and indices are checked") {
  refused("buffer 7 of 7", [](EngineSpec& s) { op_of(s, 1, 1).out = 7; });
  refused("buffer -1", [](EngineSpec& s) { op_of(s, 1, 1).x = -1; });
  refused("weight 9 of 5", [](EngineSpec& s) { op_of(s, 1, 1).weight = 9; });
  refused("is of another kind", [](EngineSpec& s) { op_of(s, 1, 1).weight = 2; });
  refused("inputs is 32, must be 64", [](EngineSpec& s) { op_of(s, 1, 6).weight = 4; });
  refused("columns 1 + 64 of 64", [](EngineSpec& s) {
    op_of(s, 1, 6).part = true;
    op_of(s, 1, 6).column = 1;
  });
  refused("qkv width is 128, must be 96", [](EngineSpec& s) { op_of(s, 1, 3).heads = 2; });
  refused("3 is no multiple of kvHeads 2", [](EngineSpec& s) { op_of(s, 1, 3).heads = 3; });
  refused(".layer: 1 of 1", [](EngineSpec& s) { op_of(s, 1, 4).layer = 1; });
  refused("headDim", [](EngineSpec& s) { op_of(s, 1, 5).head_dim = 8; });
  refused("3 lanes", [](EngineSpec& s) { s.step.weights[3].lane_starts = {0, 16, 32, 64}; });
  refused("lanes fall", [](EngineSpec& s) { s.step.weights[3].lane_starts = {0, 99, 64}; });
  refused("end of the last lane", [](EngineSpec& s) { s.step.weights[3].lane_starts = {0, 32}; });
  refused("lane 1 lies outside", [](EngineSpec& s) { op_of(s, 2, 3).lanes[1].count = 49; });
  refused("takes neither bias nor epilogue", [](EngineSpec& s) { op_of(s, 1, 6).gelu = true; });
  refused("all_reduce_add: buffer 12", [](EngineSpec& s) { s.step.segments[1].all_reduce = 12; });
  refused("buffer h: 1 × 0", [](EngineSpec& s) { s.step.buffers[0].width = 0; });
}

TEST("what an op reads was written before it") {
  refused("buffer x is read before it is written",
          [](EngineSpec& s) { s.step.segments[1].ops.erase(s.step.segments[1].ops.begin() + 1); });
  refused("buffer h is read before it is written",
          [](EngineSpec& s) { s.step.segments.erase(s.step.segments.begin()); });
  refused("all_reduce_add: buffer logits is read before",
          [](EngineSpec& s) { s.step.segments[1].all_reduce = 6; });
}

// Buffer 2 is [q | k | v] of 2 heads, buffer 3 the squares of q; weight 1 scales it.
EngineSpec cut_norm_spec() {
  EngineSpec spec = tiny_spec(weights(), 0, 2);
  spec.encode.buffers.push_back({"qkv", Per::kTile, 4, 96});
  spec.encode.buffers.push_back({"squares", Per::kTile, 4, 1});
  spec.encode.weights.push_back(
      {WeightKind::kVector, "q_norm", 32, 1, {{"embed", 0, 1, 0, 32}}, {}, {}});
  spec.encode.weights.push_back(
      {WeightKind::kLinear, "qkv", 96, 8, {{"embed", 0, 96, 0, 8}}, {}, {0, 4, 8}});
  Op project{};
  project.kind = OpKind::kLinear;
  project.name = "linear";
  project.x = 0;
  project.out = 2;
  project.weight = 2;
  project.part = true;
  project.column = 4;
  Op squares{};
  squares.kind = OpKind::kSumSquaresHeads;
  squares.name = "sum_squares_heads";
  squares.x = 2;
  squares.out = 3;
  squares.head_dim = 16;
  squares.group_starts = {0, 0, 1, 1, 2};
  Op scale = squares;
  scale.kind = OpKind::kScaleHeads;
  scale.name = "scale_heads";
  scale.out = -1;
  scale.sums = 3;
  scale.weight = 1;
  scale.heads = 2;
  scale.total_heads = 5;
  auto& ops = spec.encode.segments[0].ops;
  ops.insert(ops.end(), {project, squares, scale});
  return spec;
}

TEST("a cut norm and a linear of some columns of x: what does not fit is refused by name") {
  const EngineSpec right = cut_norm_spec();
  check_program(right.encode, right, {Per::kTile});
  const auto wrong = [](const char* part, const std::function<void(Op*)>& change) {
    EngineSpec spec = cut_norm_spec();
    change(&spec.encode.segments[0].ops[3]);  // linear, squares, scale
    EXPECT_ERROR("INVALID_ARGUMENT", part, check_program(spec.encode, spec, {Per::kTile}));
  };
  wrong("columns 5 + 8 of 12", [](Op* ops) { ops[0].column = 5; });
  wrong("inputs is 8, must be 12", [](Op* ops) { ops[0].part = false; });
  wrong("3 groups", [](Op* ops) { ops[1].group_starts.pop_back(); });
  wrong("groups fall", [](Op* ops) { ops[1].group_starts[1] = 2; });
  wrong("first group is 1", [](Op* ops) { ops[1].group_starts[0] = 1; });
  wrong("columns beyond x", [](Op* ops) { ops[1].group_starts[4] = 7; });
  wrong("columns beyond x", [](Op* ops) { ops[1].group_starts = {0, 0, 0, 0, 0}; });
  wrong("sumColumn: 1 of 1", [](Op* ops) { ops[1].sum_column = 1; });
  wrong("sumColumn: 1 of 1", [](Op* ops) { ops[2].sum_column = 1; });
  wrong("sums: buffer 4 of 4", [](Op* ops) { ops[2].sums = 4; });
  wrong("columns beyond x", [](Op* ops) { ops[2].column = 80; });
  wrong("totalHeads: 1, the rank has 2", [](Op* ops) { ops[2].total_heads = 1; });
  wrong("weight is 32, must be 16", [](Op* ops) { ops[2].heads = 1; });
}

TEST("a rank beyond its group is refused") {
  EngineSpec spec = tiny_spec(weights(), 0, 1);
  spec.rank = 1;
  EXPECT_ERROR("INVALID_ARGUMENT", "rank 1 of 1", Engine engine(spec));
}

// Each buffer is touched from its first op to its last.
TEST("memory plan: buffers that live at once do not meet, and the whole is less than their sum") {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    Program program;
    const int count = 2 + static_cast<int>(random() % 9);
    for (int i = 0; i < count; ++i)
      program.buffers.push_back({joined("b", i), i % 3 == 0 ? Per::kWanted : Per::kToken, 1,
                                 1 + static_cast<int>(random() % 100)});
    std::vector<std::pair<int, int>> life(count, {-1, -1});
    Segment segment;
    for (int at = 0; at < 12; ++at) {
      Op op{};
      op.kind = OpKind::kResidual;
      op.x = static_cast<int>(random() % count);
      op.out = static_cast<int>(random() % count);
      for (const int id : {op.x, op.out}) {
        if (life[id].first < 0) life[id].first = at;
        life[id].second = at;
      }
      segment.ops.push_back(op);
    }
    program.segments = {segment};
    const MemoryPlan plan = plan_memory(program, {.token = 7, .wanted = 3});
    const auto end = [&](int i) {
      return plan.offsets[i] + static_cast<size_t>(program.buffers[i].per == Per::kToken ? 7 : 3) *
                                   program.buffers[i].width;
    };
    size_t sum = 0;
    for (int i = 0; i < count; ++i) {
      sum += (end(i) - plan.offsets[i] + 15) / 16 * 16;
      EXPECT(end(i) <= plan.elements && plan.offsets[i] % 16 == 0);
      for (int k = 0; k < i; ++k) {
        const bool both = life[i].first >= 0 && life[k].first >= 0 &&
                          life[i].first <= life[k].second && life[k].first <= life[i].second;
        const bool apart = end(i) <= plan.offsets[k] || end(k) <= plan.offsets[i];
        EXPECT(!both || apart, "buffers ", i, " and ", k);
      }
    }
    EXPECT(plan.elements <= sum);
  }
}

}  // namespace
}  // namespace tessera::testing
