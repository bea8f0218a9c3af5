// One rank: weights, caches, the programs, and the thread that runs them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "collective/all_reduce.h"
#include "core/buffer.h"
#include "engine/plan.h"
#include "program/program.h"
#include "program/weights.h"

namespace tessera {

struct EngineInfo {
  const char* cpu;
  int threads;
  uint64_t weight_bytes, cache_bytes, workspace_bytes;
};

// Jobs run one after another on the engine's thread, in the order of the calls. Methods marked
// (executor) run there.
class Engine {
 public:
  explicit Engine(EngineSpec spec);
  // Ends the epoch, lets a running job stop at its next op and queued ones fail with CLOSED, and
  // waits for the thread; not to be called on it.
  ~Engine();

  // Any thread.
  // Throws CLOSED after stop(), INVALID_ARGUMENT when too many jobs wait.
  void post(std::function<void()> job);
  // From now on jobs fail with CLOSED; returns at once.
  void stop();
  void set_exchange(Exchange* exchange) { exchange_.store(exchange); }
  Mailbox& mailbox() { return mailbox_; }
  void end_epoch(uint64_t epoch, int lost_rank) { mailbox_.end(epoch, lost_rank); }
  // Of the epoch that has begun, before its first step.
  void link(uint64_t epoch, std::shared_ptr<SharedLinks> links) {
    mailbox_.link(epoch, std::move(links));
  }
  EngineInfo info() const;
  uint64_t sequences() const { return sequence_count_.load(); }
  uint64_t embeddings() const { return embedding_count_.load(); }
  uint64_t streams() const { return stream_count_.load(); }
  uint64_t last_step() const { return last_step_.load(); }

  // (executor)
  void load(const std::function<void(uint64_t done, uint64_t total)>& progress);
  void begin_epoch(uint64_t epoch, const PlacementSpec& placement);
  // encode_id rises. A failure after the plan was taken ends the epoch where the encoder is cut.
  EncodeOutcome encode(const EncodePlan& plan);
  // A failure after the plan was taken ends the epoch: the ranks would not agree any more.
  StepOutcome step(const StepPlan& plan);
  RowResult more_candidates(const CandidateQuery& query);
  void release(const std::vector<uint64_t>& sequence_ids,
               const std::vector<uint64_t>& embedding_ids);

 private:
  struct Run;  // one pass through a program
  struct KeptRow;
  using OpenedIds = std::set<uint64_t>;

  void run_loop();
  void check_open() const;
  void check_epoch(uint64_t epoch) const;
  void check_step(const StepPlan& plan) const;
  void check_opened(const SequenceOpen& open) const;
  void check_slice(const Slice& slice, const OpenedIds& opened, size_t mask_count) const;
  void check_image_rows(int count, const ImageRows& rows) const;
  void check_wanted(const Slice& slice, const WantedRow& row, size_t mask_count) const;
  void check_mask(const Mask& mask) const;
  void apply(const StepPlan& plan);
  void copy_block(const BlockCopy& copy);
  void check_streams(const StepPlan& plan) const;
  int known_rows(const StepPlan& plan, uint64_t stream_id) const;
  void check_seen(const StepPlan& plan, const Slice& slice) const;
  void prepare_streams(Run& run, const StepPlan& plan);
  void place_seen(Run& run, const Slice& slice);
  void cross_op(Run& run, const Op& op, const std::vector<Weight>& weights);
  void prepare(Run& run, const StepPlan& plan);
  void place_rows(Run& run, const Slice& slice);
  void execute(Run& run, const std::vector<Weight>& weights);
  void capture(Run& run, const Op& op);
  struct ProfileMark {  // taken before an op
    Clock::time_point start;
    uint64_t wait_ns = 0;
  };
  ProfileMark profile_mark(const Run& run) const;
  void note_op(Run& run, const Segment& segment, size_t op, const ProfileMark& mark) const;
  OpCost op_cost(const Run& run, const Op& op) const;
  OpCost seen_cost(const Run& run, const Op& op) const;
  uint64_t cache_row_bytes(bool cross) const;
  void execute_op(Run& run, const Op& op, const std::vector<Weight>& weights);
  bool vision_op(Run& run, const Op& op, const std::vector<Weight>& weights);
  void decoder_op(Run& run, const Op& op, const std::vector<Weight>& weights);
  void linear_op(Run& run, const Op& op, const std::vector<Weight>& weights);
  void store_embeddings(Run& run, const Op& op);
  void splice_images(Run& run, const Op& op);
  const std::vector<float>& embedding(const ImageRows& rows, Clock::time_point deadline);
  void head(Run& run, const Op& op);
  KeptRow* keep_row(const Run& run, size_t wanted, const Op& op);
  Group group();
  CacheView cache_view(std::vector<Buffer<uint8_t>>& cache, const Op& op);

  EngineSpec spec_;
  PlacementSpec placement_{};
  std::unique_ptr<ThreadPool> pool_;
  Context context_;
  std::vector<Weight> encode_weights_, step_weights_;
  MemoryPlan encode_memory_, step_memory_, stream_memory_;
  std::unique_ptr<Run> encode_run_, step_run_, stream_run_;
  Buffer<float> workspace_;
  Buffer<uint8_t> integers_;  // a quantised linear's activations
  Buffer<float> rope_table_;
  double rope_theta_ = 0;
  std::vector<Buffer<uint8_t>> cache_;        // by layer
  std::vector<Buffer<uint8_t>> cross_cache_;  // by layer with cross-attention
  Sequences sequences_;
  Streams streams_;
  std::map<uint64_t, std::vector<float>> embeddings_;
  std::deque<std::unique_ptr<KeptRow>> kept_;
  std::vector<std::unique_ptr<KeptRow>> spare_rows_;
  std::map<uint64_t, StepOutcome> answered_;  // the last few steps
  CollectiveScratch collective_scratch_;
  uint64_t epoch_ = 0, last_encode_ = 0;
  Mailbox mailbox_;
  std::atomic<Exchange*> exchange_{nullptr};
  std::atomic<uint64_t> sequence_count_{0}, embedding_count_{0}, last_step_{0}, stream_count_{0};
  std::atomic<uint64_t> cache_bytes_{0}, workspace_bytes_{0};
  std::atomic<bool> closing_{false};

  std::mutex queue_mutex_;
  std::condition_variable queue_wake_;
  std::deque<std::function<void()>> queue_;
  std::exception_ptr start_failure_;  // of the pool; load() throws it
  std::thread thread_;
};

}  // namespace tessera
