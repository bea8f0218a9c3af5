// One rank: weights, caches, the programs, and the thread that runs them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "collective/all_reduce.h"
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
  ~Engine();

  // Any thread.
  void post(std::function<void()> job);
  void set_exchange(Exchange* exchange) { exchange_.store(exchange); }
  Mailbox& mailbox() { return mailbox_; }
  void end_epoch(uint64_t epoch, int lost_rank) { mailbox_.end(epoch, lost_rank); }
  EngineInfo info() const;
  uint64_t sequences() const { return sequence_count_.load(); }
  uint64_t embeddings() const { return embedding_count_.load(); }
  uint64_t last_step() const { return last_step_.load(); }

  // (executor)
  void load(const std::function<void(uint64_t done, uint64_t total)>& progress);
  void begin_epoch(uint64_t epoch, const PlacementSpec& placement);
  EncodeOutcome encode(const EncodePlan& plan);
  StepOutcome step(const StepPlan& plan);
  RowResult more_candidates(const CandidateQuery& query);
  void release(const std::vector<uint64_t>& sequence_ids,
               const std::vector<uint64_t>& embedding_ids);

 private:
  struct Run;  // one pass through a program
  struct KeptRow;

  void run_loop();
  void check_epoch(uint64_t epoch) const;
  void check_step(const StepPlan& plan) const;
  void check_slice(const Slice& slice, const std::set<uint64_t>& opened) const;
  void apply(const StepPlan& plan);
  Run prepare(const StepPlan& plan);
  void execute(Run& run, const Program& program, const std::vector<Weight>& weights);
  void execute_op(Run& run, const Op& op, const std::vector<Weight>& weights);
  bool vision_op(Run& run, const Op& op, const std::vector<Weight>& weights);
  void decoder_op(Run& run, const Op& op, const std::vector<Weight>& weights);
  void linear_op(Run& run, const Op& op, const std::vector<Weight>& weights);
  void store_embeddings(Run& run, const Op& op);
  void splice_images(Run& run, const Op& op);
  const std::vector<float>& embedding(const ImageRows& rows, Clock::time_point deadline);
  void head(Run& run, const Op& op);
  Group group();

  EngineSpec spec_;
  PlacementSpec placement_{};
  std::unique_ptr<ThreadPool> pool_;
  Context context_;
  std::vector<Weight> encode_weights_, step_weights_;
  MemoryPlan encode_memory_, step_memory_;
  std::vector<float> workspace_;
  std::vector<float> rope_table_;
  double rope_theta_ = 0;
  std::vector<std::vector<uint8_t>> cache_;  // by layer
  Sequences sequences_;
  std::map<uint64_t, std::vector<float>> embeddings_;
  std::deque<KeptRow> kept_;
  std::map<uint64_t, StepOutcome> answered_;  // the last few steps
  uint64_t epoch_ = 0;
  Mailbox mailbox_;
  std::atomic<Exchange*> exchange_{nullptr};
  std::atomic<uint64_t> sequence_count_{0}, embedding_count_{0}, last_step_{0};

  std::mutex queue_mutex_;
  std::condition_variable queue_wake_;
  std::deque<std::function<void()>> queue_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace tessera
