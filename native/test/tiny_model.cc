#include "test/tiny_model.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <future>

namespace tessera::testing {

namespace {

constexpr int kQkvRows = 4 * kTinyHeadDim + 2 * kTinyKv * kTinyHeadDim;  // 4 query heads

TensorPiece piece(const std::string& tensor, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  return {tensor, row, rows, col, cols};
}

Op op(OpKind kind, const char* name, int x, int out) {
  Op made{};
  made.kind = kind;
  made.name = name;
  made.x = x;
  made.out = out;
  return made;
}

// Buffers: h, x, y, qkv, attention, wanted, logits.
enum { kH, kX, kY, kQkv, kAttention, kWanted, kLogits };

void add_attention(Program& program, int size) {
  const int heads = 4 / size, kv = kTinyKv / size;
  Op norm = op(OpKind::kRmsNorm, "rms_norm", kH, kX);
  norm.weight = 1;
  norm.eps = 1e-6;
  Op qkv = op(OpKind::kLinear, "linear", kX, kQkv);
  qkv.weight = 2;
  Op rope = op(OpKind::kRope, "rope", kQkv, -1);
  rope.heads = heads;
  rope.kv_heads = kv;
  rope.head_dim = kTinyHeadDim;
  rope.theta = 10000;
  Op write = rope, attention = rope;
  write.kind = OpKind::kWriteCache;
  write.name = "write_cache";
  attention.kind = OpKind::kAttention;
  attention.name = "attention";
  attention.out = kAttention;
  attention.scale = 0.25;
  Op project = op(OpKind::kLinear, "linear", kAttention, kY);
  project.weight = 3;
  project.partial = true;
  Op splice = op(OpKind::kSpliceImages, "splice_images", kH, -1);
  program.segments.push_back({{splice, norm, qkv, rope, write, attention, project}, kY});
}

void add_head(Program& program, int rank, int size) {
  const int each = kTinyVocabulary / size;
  Op add = op(OpKind::kResidual, "residual", kY, kH);
  Op gather = op(OpKind::kGatherRows, "gather_rows", kH, kWanted);
  Op logits = op(OpKind::kLinear, "linear", kWanted, kLogits);
  logits.weight = 4;
  Op head = op(OpKind::kHead, "head", kLogits, -1);
  const int lanes = 2 / size;
  for (int i = 0; i < lanes; ++i)
    head.lanes.push_back({rank * lanes + i, rank * each + i * 48, 48, i * 48});
  program.segments.push_back({{add, gather, logits, head}, -1});
}

Program step_program(int rank, int size) {
  const int heads = 4 / size, kv = kTinyKv / size, each = kTinyVocabulary / size;
  const int qkv = (heads + 2 * kv) * kTinyHeadDim, own = heads * kTinyHeadDim;
  Program program;
  program.buffers = {{"h", Per::kToken, 1, kTinyHidden}, {"x", Per::kToken, 1, kTinyHidden},
                     {"y", Per::kToken, 1, kTinyHidden}, {"qkv", Per::kToken, 1, qkv},
                     {"attention", Per::kToken, 1, own}, {"wanted", Per::kWanted, 1, kTinyHidden},
                     {"logits", Per::kWanted, 1, each}};
  const auto rows = [&](int first, int count, int dim) {
    return piece("qkv", (first + rank * count) * dim, count * dim, 0, kTinyHidden);
  };
  std::vector<int> lanes = {0, own};
  if (size == 1) lanes = {0, own / 2, own};
  program.weights = {
      {WeightKind::kTable,
       "embed",
       each,
       kTinyHidden,
       {piece("embed", rank * each, each, 0, 32)},
       {},
       {}},
      {WeightKind::kVector, "norm", kTinyHidden, 1, {piece("norm", 0, 32, 0, 1)}, {}, {}},
      {WeightKind::kLinear,
       "qkv",
       qkv,
       kTinyHidden,
       {rows(0, heads, kTinyHeadDim), rows(4, kv, kTinyHeadDim), rows(6, kv, kTinyHeadDim)},
       {},
       {0, kTinyHidden}},
      {WeightKind::kLinear, "o", kTinyHidden, own, {piece("o", 0, 32, rank * own, own)}, {}, lanes},
      {WeightKind::kLinear,
       "lm_head",
       each,
       kTinyHidden,
       {piece("lm_head", rank * each, each, 0, 32)},
       {},
       {0, kTinyHidden}}};
  Op embed = op(OpKind::kEmbedTokens, "embed_tokens", -1, kH);
  embed.weight = 0;
  embed.first_id = rank * each;
  program.segments.push_back({{embed}, kH});
  add_attention(program, size);
  add_head(program, rank, size);
  return program;
}

// Whole, with two lanes; or (`cut`) a lane on each of two ranks.
Program encode_program(int rank, int size, TinyVision vision) {
  const bool cut = vision == TinyVision::kCut && size > 1;
  Program program;
  if (vision == TinyVision::kWorkers && rank < size) return program;
  program.buffers = {{"patches", Per::kTile, 4, 12}, {"embeddings", Per::kTile, 4, kTinyHidden}};
  const int first = cut ? 6 * rank : 0, inputs = cut ? 6 : 12;
  program.weights = {{WeightKind::kLinear,
                      "patch",
                      kTinyHidden,
                      inputs,
                      {piece("patch", 0, 32, first, inputs)},
                      {},
                      {0, 6}}};
  if (!cut) program.weights[0].lane_starts.push_back(12);
  Op patches = op(OpKind::kPatchify, "patchify", -1, 0);
  patches.tile_size = kTinyTile;
  patches.patch_size = kTinyPatch;
  Op project = op(OpKind::kLinear, "linear", 0, 1);
  project.weight = 0;
  project.partial = cut;
  project.part = cut;
  project.column = first;
  Op store = op(OpKind::kStoreEmbeddings, "store_embeddings", 1, -1);
  store.share = !cut;
  if (cut) {
    program.segments = {{{patches, project}, 1}, {{store}, -1}};
  } else {
    program.segments = {{{patches, project, store}, -1}};
  }
  return program;
}

}  // namespace

TinyWeights::TinyWeights() {
  put("embed", kTinyVocabulary, kTinyHidden, 1.0f);
  put("norm", kTinyHidden, 1, 1.0f);
  put("qkv", kQkvRows, kTinyHidden, 0.3f);
  put("o", kTinyHidden, 4 * kTinyHeadDim, 0.3f);
  put("lm_head", kTinyVocabulary, kTinyHidden, 0.5f);
  put("patch", kTinyHidden, 12, 0.5f);
  char name[] = "/tmp/tessera-tiny-XXXXXX";
  const int fd = mkstemp(name);
  CHECK(fd >= 0, "no temporary file");
  close(fd);
  path_ = name;
  std::ofstream file(path_, std::ios::binary);
  file.write(reinterpret_cast<const char*>(data_.data()),
             static_cast<std::streamsize>(data_.size() * 2));
  for (auto& [tensor, source] : sources_) source.path = path_;
}

TinyWeights::~TinyWeights() { unlink(path_.c_str()); }

void TinyWeights::put(const std::string& name, int rows, int cols, float size) {
  auto values = random_values(static_cast<size_t>(rows) * cols, rows + cols);
  for (float& value : values) value *= size;
  sources_[name] = {"", "BF16", data_.size() * 2, values.size() * 2, rows, cols};
  for (const uint16_t value : to_bf16_list(values)) data_.push_back(value);
}

EngineSpec tiny_spec(const TinyWeights& weights, int rank, int size, TinyVision vision) {
  EngineSpec spec{};
  const bool decodes = rank < size;
  spec.encode = encode_program(rank, size, vision);
  if (decodes) spec.step = step_program(rank, size);
  spec.tensors = weights.sources();
  spec.rank = rank;
  spec.size = size;
  spec.threads = 1;
  spec.layers = decodes ? 1 : 0;
  spec.kv_heads = decodes ? kTinyKv / size : 0;
  spec.head_dim = decodes ? kTinyHeadDim : 0;
  spec.embedding_rows = 4;
  spec.embedding_width = kTinyHidden;
  spec.tile_size = kTinyTile;
  spec.vocabulary = kTinyVocabulary;
  return spec;
}

PlacementSpec tiny_placement() {
  PlacementSpec placement{};
  placement.block_count = 8;
  placement.max_batched_tokens = 64;
  placement.max_sequences = 4;
  placement.max_wanted_rows = 4;
  placement.max_tiles = 2;
  placement.max_embeddings = 3;
  placement.max_model_len = 128;
  placement.max_steps_in_flight = 1;
  placement.selectable_ids = 90;
  placement.collective_deadline_ms = 2000;
  return placement;
}

void TinyGroup::Wire::send(OutFrame frame) {
  if (group_->held_rank_.load() == rank_) return;
  for (const int peer : frame.peers)
    group_->engine(peer).mailbox().deliver(rank_, frame.key, frame.offset, frame.total,
                                           frame.buffer.data() + kFrameHeadroom,
                                           frame.buffer.size() - kFrameHeadroom);
}

TinyGroup::TinyGroup(int size, TinyVision vision, int encoders)
    : width_(size), encoders_(encoders) {
  for (int rank = 0; rank < size + encoders; ++rank) {
    wires_.push_back(std::make_unique<Wire>(this, rank));
    engines_.push_back(std::make_unique<Engine>(tiny_spec(weights_, rank, size, vision)));
    engines_.back()->set_exchange(wires_.back().get());
  }
  all([](Engine& engine, int) { engine.load([](uint64_t, uint64_t) {}); });
}

void TinyGroup::all(const std::function<void(Engine&, int)>& work) {
  std::vector<std::promise<void>> done(engines_.size());
  for (int rank = 0; rank < size(); ++rank)
    engines_[rank]->post([&, rank] {
      try {
        work(*engines_[rank], rank);
        done[rank].set_value();
      } catch (...) {
        done[rank].set_exception(std::current_exception());
      }
    });
  std::exception_ptr failure;
  for (auto& one : done) {
    try {
      one.get_future().get();
    } catch (...) {
      if (failure == nullptr) failure = std::current_exception();
    }
  }
  if (failure != nullptr) std::rethrow_exception(failure);
}

void TinyGroup::begin(uint64_t epoch, const PlacementSpec& placement) {
  PlacementSpec with = placement;
  with.encoders = encoders_;
  all([&](Engine& engine, int) { engine.begin_epoch(epoch, with); });
}

HeadCandidate TinyGroup::step(const StepPlan& plan) {
  std::vector<StepOutcome> outcomes(engines_.size());
  all([&](Engine& engine, int rank) {
    if (rank < width_) outcomes[rank] = engine.step(plan);
  });
  outcomes.resize(width_);
  HeadCandidate best{-1, 0, -1e30f, 0};
  for (const StepOutcome& outcome : outcomes)
    for (const LaneResult& lane : outcome.rows.back().lanes)
      if (lane.has_best && lane.best.scaled + lane.best.noise > best.scaled + best.noise)
        best = lane.best;
  return best;
}

StepPlan tiny_step(uint64_t step, const std::vector<int>& tokens, int start, bool open) {
  StepPlan plan{};
  plan.epoch = 1;
  plan.step_id = step;
  plan.released_step = step - 1;
  if (open) plan.opened.push_back({7, static_cast<int>(tokens.size()), {}, {}});
  Slice slice{7, start, tokens, 0, {}, {}, {}};
  const int end = start + static_cast<int>(tokens.size());
  if (open)
    for (int block = 0; block < (end + 64) / kBlockTokens; ++block)
      slice.block_ids.push_back(block);
  slice.wanted.push_back({static_cast<int>(tokens.size()) - 1, 0, 0, true, {}});
  plan.slices.push_back(slice);
  return plan;
}

}  // namespace tessera::testing
