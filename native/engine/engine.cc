#include "engine/engine.h"

#include <algorithm>

#include "core/check.h"
#include "engine/run.h"

namespace tessera {

namespace {

constexpr size_t kAnsweredSteps = 8;  // results kept for a plan that is sent again

double find_theta(const Program& program) {
  for (const Segment& segment : program.segments)
    for (const Op& op : segment.ops)
      if (op.kind == OpKind::kRope) return op.theta;
  return 0;
}

}  // namespace

Engine::Engine(EngineSpec spec) : spec_(std::move(spec)) {
  CHECK_ARGUMENT(
      spec_.size >= 1 && spec_.size <= kMaxLanes && spec_.rank >= 0 && spec_.rank < spec_.size,
      "rank ", spec_.rank, " of ", spec_.size);
  check_program(spec_.encode, spec_);
  check_program(spec_.step, spec_);
  rope_theta_ = find_theta(spec_.step);
  context_.kind = detect_cpu_kind();
  CHECK_ARGUMENT(spec_.threads >= 1 && spec_.threads <= 1024, "threads ", spec_.threads,
                 ": must be 1…1024");
  thread_ = std::thread([this] { run_loop(); });
}

Engine::~Engine() {
  mailbox_.end(epoch_, -1);
  {
    std::lock_guard lock(queue_mutex_);
    closing_ = true;
    queue_wake_.notify_all();
  }
  thread_.join();
}

void Engine::post(std::function<void()> job) {
  std::lock_guard lock(queue_mutex_);
  queue_.push_back(std::move(job));
  queue_wake_.notify_one();
}

void Engine::run_loop() {
  set_float_mode();
  pool_ = std::make_unique<ThreadPool>(spec_.threads);
  context_.pool = pool_.get();
  while (true) {
    std::function<void()> job;
    {
      std::unique_lock lock(queue_mutex_);
      queue_wake_.wait(lock, [&] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    job();
  }
}

EngineInfo Engine::info() const {
  uint64_t cache = 0;
  for (const auto& layer : cache_) cache += layer.size();
  return {cpu_kind_name(context_.kind), spec_.threads,
          weight_bytes(spec_.encode) + weight_bytes(spec_.step), cache,
          (workspace_.size() + rope_table_.size()) * sizeof(float)};
}

void Engine::load(const std::function<void(uint64_t, uint64_t)>& progress) {
  const uint64_t total = weight_bytes(spec_.encode) + weight_bytes(spec_.step);
  uint64_t done = 0;
  const auto loaded = [&](uint64_t bytes) { progress(done += bytes, total); };
  step_weights_ = load_weights(context_, spec_.step, spec_.tensors, loaded);
  encode_weights_ = load_weights(context_, spec_.encode, spec_.tensors, loaded);
}

void Engine::begin_epoch(uint64_t epoch, const PlacementSpec& placement) {
  CHECK_ARGUMENT(epoch > epoch_, "epoch ", epoch, " is not above ", epoch_);
  CHECK_ARGUMENT(placement.block_count > 0 && placement.max_batched_tokens > 0 &&
                     placement.max_wanted_rows > 0 && placement.max_model_len > 0,
                 "placement: a size is zero");
  placement_ = placement;
  encode_memory_ = plan_memory(spec_.encode, 0, 0, placement.max_tiles);
  step_memory_ =
      plan_memory(spec_.step, placement.max_batched_tokens, placement.max_wanted_rows, 0);
  workspace_.assign(std::max(encode_memory_.elements, step_memory_.elements), 0.0f);
  const size_t element = placement.kv_bf16 ? 2 : 4;
  const size_t layer =
      element * placement.block_count * spec_.kv_heads * 2 * spec_.head_dim * kBlockTokens;
  cache_.assign(spec_.layers, {});
  for (auto& data : cache_) data.assign(layer, 0);
  rope_table_.resize(static_cast<size_t>(placement.max_model_len) * spec_.head_dim);
  if (rope_theta_ > 0)
    rope_table(rope_table_.data(), placement.max_model_len, spec_.head_dim, rope_theta_);
  sequences_.clear();
  embeddings_.clear();
  kept_.clear();
  answered_.clear();
  sequence_count_ = embedding_count_ = last_step_ = 0;
  epoch_ = epoch;
  mailbox_.begin(epoch);
}

void Engine::check_epoch(uint64_t epoch) const {
  CHECK_CODE("EPOCH_ENDED", epoch == epoch_, "epoch ", epoch, ": the engine is at ", epoch_);
  mailbox_.check_running();
}

Group Engine::group() {
  return {spec_.rank, spec_.size, placement_.wire_bf16, exchange_.load(), &mailbox_};
}

EncodeOutcome Engine::encode(const EncodePlan& plan) {
  const Clock::time_point start = Clock::now();
  check_epoch(plan.epoch);
  const size_t pixels = static_cast<size_t>(3) * spec_.tile_size * spec_.tile_size;
  CHECK_ARGUMENT(plan.tiles.size() <= static_cast<size_t>(placement_.max_tiles),
                 "tiles: ", plan.tiles.size(), ", limit ", placement_.max_tiles);
  for (const TileInput& tile : plan.tiles)
    CHECK_ARGUMENT(tile.u8.size() == pixels || tile.f32.size() == pixels, "tile ",
                   tile.embedding_id, ": ", std::max(tile.u8.size(), tile.f32.size()),
                   " values, must be ", pixels);
  Run run;
  run.memory = &encode_memory_;
  run.program = &spec_.encode;
  run.epoch = plan.epoch;
  run.step = plan.encode_id;
  run.tiles = static_cast<int>(plan.tiles.size());
  run.encode = &plan;
  run.capture = &plan.capture;
  run.deadline = Clock::now() + std::chrono::milliseconds(placement_.collective_deadline_ms);
  execute(run, spec_.encode, encode_weights_);
  const auto spent = std::chrono::nanoseconds(Clock::now() - start).count();
  return {static_cast<uint64_t>(spent), std::move(run.outcome.captured)};
}

StepOutcome Engine::step(const StepPlan& plan) {
  const Clock::time_point start = Clock::now();
  check_epoch(plan.epoch);
  if (const auto again = answered_.find(plan.step_id); again != answered_.end())
    return again->second;
  check_step(plan);
  apply(plan);
  Run run = prepare(plan);
  execute(run, spec_.step, step_weights_);
  const uint64_t total = std::chrono::nanoseconds(Clock::now() - start).count();
  run.outcome.wait_ns = run.times.wait_ns;
  run.outcome.collective_ns = run.times.collective_ns;
  run.outcome.compute_ns = total - std::min(total, run.times.wait_ns);
  run.outcome.exchange_bytes = run.times.sent_bytes;
  last_step_ = plan.step_id;
  answered_[plan.step_id] = run.outcome;
  if (answered_.size() > kAnsweredSteps) answered_.erase(answered_.begin());
  return std::move(run.outcome);
}

void Engine::apply(const StepPlan& plan) {
  release(plan.closed_sequence_ids, plan.released_embedding_ids);
  while (!kept_.empty() && kept_.front().step <= plan.released_step) kept_.pop_front();
  for (const SequenceOpen& open : plan.opened) {
    Sequence& sequence = sequences_[open.sequence_id];
    sequence = {open.prompt_length, open.sampling, open.token_ids, {}};
  }
  for (const Slice& slice : plan.slices) apply_slice(sequences_.at(slice.sequence_id), slice);
  sequence_count_ = sequences_.size();
}

void Engine::release(const std::vector<uint64_t>& sequence_ids,
                     const std::vector<uint64_t>& embedding_ids) {
  for (const uint64_t id : sequence_ids) sequences_.erase(id);
  for (const uint64_t id : embedding_ids) {
    std::vector<uint8_t> unused;
    if (embeddings_.erase(id) == 0) mailbox_.take_embedding(id, &unused);
  }
  sequence_count_ = sequences_.size();
  embedding_count_ = embeddings_.size();
}

RowResult Engine::more_candidates(const CandidateQuery& query) {
  for (const KeptRow& kept : kept_) {
    if (kept.step != query.step_id || kept.sequence_id != query.sequence_id ||
        kept.row != query.row)
      continue;
    RowResult result{query.sequence_id, query.row, {}};
    for (const VocabularyLane& lane : kept.lanes) {
      LaneResult out;
      out.lane = lane.lane;
      out.candidates = lane_candidates(context_, lane, kept.raw.data(), kept.processed.data(),
                                       kept.draw, query.count);
      result.lanes.push_back(std::move(out));
    }
    return result;
  }
  throw Error("INVALID_ARGUMENT", "step " + std::to_string(query.step_id) + ", sequence " +
                                      std::to_string(query.sequence_id) +
                                      ": its logits are not kept");
}

}  // namespace tessera
