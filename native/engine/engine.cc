#include "engine/engine.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "engine/run.h"

namespace tessera {

namespace {

constexpr size_t kAnsweredSteps = 8;  // results kept for a plan that is sent again
constexpr size_t kMaxJobs = 1024;     // that wait

double find_theta(const Program& program) {
  for (const Segment& segment : program.segments)
    for (const Op& op : segment.ops)
      if (op.kind == OpKind::kRope) return op.theta;
  return 0;
}

}  // namespace

Engine::Engine(EngineSpec spec)
    : spec_(std::move(spec)),
      encode_run_(std::make_unique<Run>()),
      step_run_(std::make_unique<Run>()),
      stream_run_(std::make_unique<Run>()) {
  const bool decodes = spec_.rank < spec_.size;
  CHECK_ARGUMENT(spec_.size >= 1 && spec_.size <= kMaxLanes && spec_.rank >= 0 &&
                     (decodes || spec_.step.segments.empty()),
                 "rank ", spec_.rank, " of ", spec_.size);
  check_program(spec_.encode, spec_, {Per::kTile});
  check_program(spec_.step, spec_, {Per::kToken, Per::kWanted});
  check_program(spec_.stream, spec_, {Per::kStream});
  rope_theta_ = find_theta(spec_.step);
  context_.kind = detect_cpu_kind();
  CHECK_ARGUMENT(spec_.threads >= 1 && spec_.threads <= 1024, "threads ", spec_.threads,
                 ": must be 1…1024");
  thread_ = std::thread([this] { run_loop(); });
}

Engine::~Engine() {
  stop();
  thread_.join();
}

void Engine::stop() {
  {
    std::lock_guard lock(queue_mutex_);
    closing_ = true;
    queue_wake_.notify_all();
  }
  mailbox_.stop();
}

void Engine::post(std::function<void()> job) {
  std::lock_guard lock(queue_mutex_);
  check_open();
  CHECK_ARGUMENT(queue_.size() < kMaxJobs, "jobs: ", queue_.size(), " wait, limit ", kMaxJobs);
  queue_.push_back(std::move(job));
  queue_wake_.notify_one();
}

void Engine::check_open() const { CHECK_CODE("CLOSED", !closing_.load(), "the engine is closed"); }

void Engine::run_loop() {
  set_float_mode();
  try {
    pool_ = std::make_unique<ThreadPool>(spec_.threads);
    context_.pool = pool_.get();
  } catch (...) {
    start_failure_ = std::current_exception();
  }
  while (true) {
    std::function<void()> job;
    {
      std::unique_lock lock(queue_mutex_);
      queue_wake_.wait(lock, [&] { return closing_.load() || !queue_.empty(); });
      if (queue_.empty()) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    try {
      job();
    } catch (...) {
      // Jobs tell their callers of their own failures; one that has none must not change ranks
      // apart.
      mailbox_.stop();
    }
  }
}

EngineInfo Engine::info() const {
  return {cpu_kind_name(context_.kind), spec_.threads,
          weight_bytes(spec_.encode) + weight_bytes(spec_.step), cache_bytes_.load(),
          workspace_bytes_.load()};
}

void Engine::load(const std::function<void(uint64_t, uint64_t)>& progress) {
  if (start_failure_ != nullptr) std::rethrow_exception(start_failure_);
  const uint64_t total = weight_bytes(spec_.encode) + weight_bytes(spec_.step);
  uint64_t done = 0;
  const auto loaded = [&](uint64_t bytes) {
    check_open();
    progress(done += bytes, total);
  };
  step_weights_ = load_weights(context_, spec_.step, spec_.tensors, loaded);
  encode_weights_ = load_weights(context_, spec_.encode, spec_.tensors, loaded);
}

void Engine::begin_epoch(uint64_t epoch, const PlacementSpec& placement) {
  check_open();
  CHECK_ARGUMENT(epoch > epoch_, "epoch ", epoch, " is not above ", epoch_);
  CHECK_ARGUMENT(placement.block_count > 0 && placement.max_batched_tokens > 0 &&
                     placement.max_wanted_rows > 0 && placement.max_model_len > 0 &&
                     placement.max_tiles > 0 && placement.max_sequences > 0 &&
                     placement.max_embeddings >= 0 && placement.max_steps_in_flight > 0 &&
                     placement.spin_us >= 0 && placement.encoders >= 0 &&
                     spec_.rank < spec_.size + placement.encoders,
                 "placement: a size is zero, or rank ", spec_.rank, " is beyond ", spec_.size,
                 " + ", placement.encoders);
  mailbox_.end(epoch_, -1);
  placement_ = placement;
  const bool cross = spec_.cross.layers > 0;
  CHECK_ARGUMENT(!cross || (placement.max_stream_rows > 0 && placement.cross_block_count > 0),
                 "placement: max_stream_rows ", placement.max_stream_rows, ", cross_block_count ",
                 placement.cross_block_count, ", must be above 0");
  encode_memory_ = plan_memory(spec_.encode, {.tile = placement.max_tiles});
  step_memory_ = plan_memory(
      spec_.step, {.token = placement.max_batched_tokens, .wanted = placement.max_wanted_rows});
  stream_memory_ = plan_memory(spec_.stream, {.stream = placement.max_stream_rows});
  // What is held is given back before the new is taken.
  workspace_ = {};
  workspace_ = Buffer<float>(
      std::max({encode_memory_.elements, step_memory_.elements, stream_memory_.elements}));
  const size_t layer =
      placement.block_count * cache_block_bytes(placement.kv_type, spec_.kv_heads, spec_.head_dim);
  cache_.clear();
  for (int i = 0; i < spec_.layers; ++i) cache_.emplace_back(layer);
  cross_cache_.clear();
  const size_t cross_layer =
      placement.cross_block_count *
      cache_block_bytes(placement.kv_type, spec_.cross.kv_heads, spec_.cross.head_dim);
  for (int i = 0; i < spec_.cross.layers; ++i) cross_cache_.emplace_back(cross_layer);
  rope_table_ = {};
  rope_table_ = Buffer<float>(static_cast<size_t>(placement.max_model_len) * spec_.head_dim);
  if (rope_theta_ > 0)
    rope_table(rope_table_.data(), placement.max_model_len, spec_.head_dim, rope_theta_);
  sequences_.clear();
  streams_.clear();
  embeddings_.clear();
  kept_.clear();
  answered_.clear();
  step_run_->reserve(placement);
  sequence_count_ = embedding_count_ = last_step_ = stream_count_ = 0;
  cache_bytes_ = layer * cache_.size() + cross_layer * cross_cache_.size();
  workspace_bytes_ = workspace_.bytes() + rope_table_.bytes();
  epoch_ = epoch;
  last_encode_ = 0;
  mailbox_.begin(epoch, {spec_.rank, spec_.size, static_cast<size_t>(placement.max_embeddings),
                         placement.spin_us, placement.encoders});
}

void Engine::check_epoch(uint64_t epoch) const {
  check_open();
  CHECK_CODE("EPOCH_ENDED", epoch == epoch_, "epoch ", epoch, ": the engine is at ", epoch_);
  mailbox_.check_running();
}

Group Engine::group() {
  return {spec_.rank,       spec_.size, placement_.wire_bf16,
          exchange_.load(), &mailbox_,  &collective_scratch_};
}

EncodeOutcome Engine::encode(const EncodePlan& plan) {
  const Clock::time_point start = Clock::now();
  check_epoch(plan.epoch);
  CHECK_ARGUMENT(!spec_.encode.segments.empty(), "tiles: rank ", spec_.rank, " encodes none");
  const size_t pixels = static_cast<size_t>(3) * spec_.tile_size * spec_.tile_size;
  CHECK_ARGUMENT(plan.tiles.size() <= static_cast<size_t>(placement_.max_tiles),
                 "tiles: ", plan.tiles.size(), ", limit ", placement_.max_tiles);
  for (const TileInput& tile : plan.tiles)
    CHECK_ARGUMENT(tile.u8.size() == pixels || tile.f32.size() == pixels, "tile ",
                   tile.embedding_id, ": ", std::max(tile.u8.size(), tile.f32.size()),
                   " values, must be ", pixels);
  CHECK_ARGUMENT(plan.encode_id > last_encode_, "encode_id: ", plan.encode_id, ", must be above ",
                 last_encode_);
  last_encode_ = plan.encode_id;
  Run& run = *encode_run_;
  run.begin(spec_.encode, encode_memory_, plan.epoch, plan.encode_id);
  run.tiles = static_cast<int>(plan.tiles.size());
  run.encode = &plan;
  run.capture = &plan.capture;
  if (plan.profile) run.profile_from(start);
  const int limit = plan.deadline_ms > 0 ? plan.deadline_ms : placement_.collective_deadline_ms;
  run.deadline = start + std::chrono::milliseconds(limit);
  try {
    execute(run, encode_weights_);
  } catch (...) {
    // Of a cut encoder's ranks some may hold the embeddings and some not.
    if (spec_.encode.segments.size() > 1) mailbox_.end(epoch_, -1);
    throw;
  }
  const auto spent = std::chrono::nanoseconds(Clock::now() - start).count();
  return {static_cast<uint64_t>(spent), run.times.sent_bytes, std::move(run.outcome.captured),
          std::move(run.op_times)};
}

StepOutcome Engine::step(const StepPlan& plan) {
  const Clock::time_point start = Clock::now();
  check_epoch(plan.epoch);
  CHECK_ARGUMENT(spec_.rank < spec_.size, "plan: rank ", spec_.rank, " only encodes tiles");
  if (const auto again = answered_.find(plan.step_id); again != answered_.end())
    return again->second;
  check_step(plan);
  Run& run = *step_run_;
  try {
    apply(plan);
    Run& streams = *stream_run_;
    prepare_streams(streams, plan);
    if (plan.profile) streams.profile_from(start);
    execute(streams, step_weights_);
    prepare(run, plan);
    run.call = streams.call;  // collectives are counted over the whole step
    run.times = streams.times;
    if (plan.profile) run.profile_from(start);
    run.op_times = std::move(streams.op_times);
    execute(run, step_weights_);
  } catch (...) {
    mailbox_.end(epoch_, -1);
    throw;
  }
  const uint64_t total = std::chrono::nanoseconds(Clock::now() - start).count();
  run.outcome.wait_ns = run.times.wait_ns;
  run.outcome.collective_ns = run.times.collective_ns;
  run.outcome.compute_ns = total - std::min(total, run.times.wait_ns);
  run.outcome.exchange_bytes = run.times.sent_bytes;
  run.outcome.op_times = std::move(run.op_times);
  last_step_ = plan.step_id;
  answered_[plan.step_id] = run.outcome;
  if (answered_.size() > kAnsweredSteps) answered_.erase(answered_.begin());
  return std::move(run.outcome);
}

void Engine::apply(const StepPlan& plan) {
  release(plan.closed_sequence_ids, plan.released_embedding_ids);
  while (!kept_.empty() && kept_.front()->step <= plan.released_step) {
    spare_rows_.push_back(std::move(kept_.front()));
    kept_.pop_front();
  }
  for (const SequenceOpen& open : plan.opened) {
    Sequence& sequence = sequences_[open.sequence_id];
    sequence = {open.prompt_length, open.sampling, open.token_ids, {}};
  }
  for (const uint64_t id : plan.closed_stream_ids) streams_.erase(id);
  for (const StreamOpen& open : plan.opened_streams)
    streams_[open.stream_id] = {static_cast<int>(open.token_ids.size()),
                                {open.block_ids.begin(), open.block_ids.end()}};
  stream_count_ = streams_.size();
  for (const BlockCopy& copy : plan.copied_blocks) copy_block(copy);
  for (const Slice& slice : plan.slices) apply_slice(sequences_.at(slice.sequence_id), slice);
  sequence_count_ = sequences_.size();
}

void Engine::copy_block(const BlockCopy& copy) {
  for (Buffer<uint8_t>& layer : cache_) {
    const size_t bytes = layer.bytes() / placement_.block_count;
    std::memmove(layer.data() + copy.to * bytes, layer.data() + copy.from * bytes, bytes);
  }
}

void Engine::release(const std::vector<uint64_t>& sequence_ids,
                     const std::vector<uint64_t>& embedding_ids) {
  for (const uint64_t id : sequence_ids) sequences_.erase(id);
  for (const uint64_t id : embedding_ids)
    if (embeddings_.erase(id) == 0) mailbox_.forget_embedding(id);
  sequence_count_ = sequences_.size();
  embedding_count_ = embeddings_.size();
}

RowResult Engine::more_candidates(const CandidateQuery& query) {
  check_open();
  CHECK_ARGUMENT(query.count > 0 && query.count <= spec_.vocabulary, "count: ", query.count,
                 ", must be 1…", spec_.vocabulary);
  for (const auto& kept : kept_) {
    if (kept->step != query.step_id || kept->sequence_id != query.sequence_id ||
        kept->row != query.row)
      continue;
    RowResult result{query.sequence_id, query.row, {}};
    for (const VocabularyLane& lane : *kept->lanes) {
      LaneResult out;
      out.lane = lane.lane;
      out.candidates =
          lane_candidates(context_, lane, kept->raw.data() + lane.column,
                          kept->processed.data() + lane.column, kept->draw, query.count);
      result.lanes.push_back(std::move(out));
    }
    return result;
  }
  throw Error("INVALID_ARGUMENT", "step " + std::to_string(query.step_id) + ", sequence " +
                                      std::to_string(query.sequence_id) +
                                      ": its logits are not kept");
}

}  // namespace tessera
