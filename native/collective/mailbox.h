// Frames from peers, put together and waited for. Thread-safe: the exchange thread delivers, the
// executor waits.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

namespace tessera {

using Clock = std::chrono::steady_clock;

enum class FrameKind { kCollective, kEmbedding };

// Names a tensor on the wire. Collective: sequence is the step, item the call. Embedding: the
// encode and the id.
struct FrameKey {
  FrameKind kind;
  uint64_t epoch, sequence, item;
};

// What native code wants sent: [kFrameHeadroom bytes | payload ≤ kFramePayload].
inline constexpr size_t kFrameHeadroom = 96;
inline constexpr size_t kFramePayload = 1 << 20;
struct OutFrame {
  std::vector<int> peers;
  FrameKey key;
  uint64_t offset, total;
  std::vector<uint8_t> buffer;
};

// The way to the peers; gRPC's side of it is the binding's, tests connect engines directly.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual void send(OutFrame frame) = 0;
};

class Mailbox {
 public:
  // Takes an epoch; what is kept of others is dropped.
  void begin(uint64_t epoch);
  // Whoever waits is woken with EPOCH_ENDED, or with PEER_LOST when `lost_rank` ≥ 0.
  void end(uint64_t epoch, int lost_rank);
  // Frames of other epochs are dropped. Throws INVALID_ARGUMENT when the frame contradicts earlier
  // ones.
  void deliver(int peer, const FrameKey& key, uint64_t offset, uint64_t total, const uint8_t* data,
               size_t bytes);
  // The whole tensor from `peer`. Throws PEER_TIMEOUT or what end() said.
  std::vector<uint8_t> take(int peer, const FrameKey& key, Clock::time_point deadline);
  // True, and the tensor in `data`, when embedding `id` came from anyone.
  bool take_embedding(uint64_t id, std::vector<uint8_t>* data);
  // Waits for a further arrival or `deadline`; false when it passed. Throws what end() said.
  bool wait_arrival(uint64_t seen, Clock::time_point deadline);
  uint64_t arrivals() const { return arrivals_.load(); }
  void check_running() const;

 private:
  struct Slot {
    std::vector<uint8_t> data;
    uint64_t received = 0;
  };
  // kind, item, sequence, peer
  using Key = std::tuple<int, uint64_t, uint64_t, int>;

  void throw_if_ended() const;
  std::vector<uint8_t> remove(std::map<Key, Slot>::iterator slot);

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<Key, Slot> slots_;
  uint64_t bytes_ = 0;
  uint64_t epoch_ = 0;
  bool ended_ = true;
  int lost_rank_ = -1;
  std::atomic<uint64_t> arrivals_{0};
};

}  // namespace tessera
