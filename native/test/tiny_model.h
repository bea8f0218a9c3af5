// A model of one layer written by hand, its weights in a temporary file, and ranks of it in this
// process.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "test/testing.h"

namespace tessera::testing {

inline constexpr int kTinyHidden = 32, kTinyHeadDim = 16, kTinyKv = 2, kTinyVocabulary = 96;
inline constexpr int kTinyTile = 4, kTinyPatch = 2;

// Stored tensors in one file that is removed with it.
class TinyWeights {
 public:
  TinyWeights();
  ~TinyWeights();
  const std::map<std::string, TensorSource>& sources() const { return sources_; }
  const std::string& path() const { return path_; }

 private:
  void put(const std::string& name, int rows, int cols, float size);
  std::string path_;
  std::vector<uint16_t> data_;
  std::map<std::string, TensorSource> sources_;
};

// Who holds the vision encoder: every rank whole, two ranks a lane each, or ranks of their own.
enum class TinyVision { kWhole, kCut, kWorkers };

EngineSpec tiny_spec(const TinyWeights& weights, int rank, int size,
                     TinyVision vision = TinyVision::kWhole);
PlacementSpec tiny_placement();

// Ranks that exchange frames within the process. No job runs when it ends: all() waits for its own.
class TinyGroup {
 public:
  explicit TinyGroup(int size, TinyVision vision = TinyVision::kWhole, int encoders = 0);
  // Encoders included.
  int size() const { return static_cast<int>(engines_.size()); }
  Engine& engine(int rank) { return *engines_[rank]; }
  // Runs `work(engine)` on every rank's thread and waits; the first failure is thrown.
  void all(const std::function<void(Engine&, int rank)>& work);
  void begin(uint64_t epoch, const PlacementSpec& placement = tiny_placement());
  // The logits' best id and raw value of the last row, from the lanes of all ranks.
  HeadCandidate step(const StepPlan& plan);
  // Frames from `rank` are held back until release().
  void hold(int rank) { held_rank_ = rank; }

 private:
  class Wire : public Exchange {
   public:
    Wire(TinyGroup* group, int rank) : group_(group), rank_(rank) {}
    void send(OutFrame frame) override;

   private:
    TinyGroup* group_;
    int rank_;
  };

  int width_, encoders_;
  TinyWeights weights_;
  std::vector<std::unique_ptr<Wire>> wires_;
  std::vector<std::unique_ptr<Engine>> engines_;
  std::atomic<int> held_rank_{-1};
};

// One sequence's slice from `start` with the blocks it needs so far; the last row is wanted.
StepPlan tiny_step(uint64_t step, const std::vector<int>& tokens, int start, bool open);

}  // namespace tessera::testing
