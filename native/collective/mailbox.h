// Frames from peers, put together and waited for. Thread-safe: the exchange thread delivers, the
// executor waits, and delivers what comes through shared memory while it does.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

namespace tessera {

using Clock = std::chrono::steady_clock;

enum class FrameKind { kCollective, kEmbedding, kEncodeCollective };

// Names a tensor on the wire. Collective: sequence is the step (of an encode: the encode), item the
// call. Embedding: the encode and the id.
struct FrameKey {
  FrameKind kind;
  uint64_t epoch, sequence, item;
};
// A collective's sequence and item in words.
std::string place_name(const FrameKey& key);

class SharedLinks;

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
  // Throws CLOSED when the frame cannot be handed on.
  virtual void send(OutFrame frame) = 0;
};

// Who may send what in an epoch.
struct MailboxLimits {
  int rank = 0, size = 1;  // the owner's, the group's
  size_t embeddings = 0;   // that wait to be taken
  int spin_us = 0;         // how long a wait polls before it sleeps
  int encoders = 0;        // ranks beyond the group's, who send embeddings only
};

class Mailbox {
 public:
  // Takes an epoch; what is kept of others is dropped.
  void begin(uint64_t epoch, const MailboxLimits& limits);
  // Whoever waits is woken with EPOCH_ENDED, or with PEER_LOST when `lost_rank` ≥ 0. The first end
  // of an epoch counts.
  void end(uint64_t epoch, int lost_rank);
  // Ends whatever epoch there is.
  void stop();
  // Frames of other epochs are dropped. Throws INVALID_ARGUMENT when the frame contradicts earlier
  // ones, comes a second time, passes a limit, or is of no peer.
  void deliver(int peer, const FrameKey& key, uint64_t offset, uint64_t total, const uint8_t* data,
               size_t bytes);
  // Until the epoch ends, frames come through `links` too. Ignored when the epoch is another one.
  void link(uint64_t epoch, std::shared_ptr<SharedLinks> links);
  // Null: there is no shared memory.
  std::shared_ptr<SharedLinks> links() const;
  // Waits until the tensor under `key` is there from each of `peers`. Throws PEER_TIMEOUT naming
  // the first that is missing, or what end() said.
  void await(std::span<const int> peers, const FrameKey& key, Clock::time_point deadline);
  // The whole tensor from `peer`; calls are taken in rising order of (sequence, item). Throws
  // PEER_TIMEOUT or what end() said.
  std::vector<uint8_t> take(int peer, const FrameKey& key, Clock::time_point deadline);
  // True, and the tensor in `data`, when embedding `id` came from anyone.
  bool take_embedding(uint64_t id, std::vector<uint8_t>* data);
  // Embedding `id` is not wanted any more: dropped if it is here, and when it comes.
  void forget_embedding(uint64_t id);
  // Whether `id` was forgotten before it was there; asked once, by the rank that encodes it.
  bool was_forgotten(uint64_t id);
  // Gives a taken tensor's memory back for later frames.
  void recycle(std::vector<uint8_t> data);
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
  // The last collective taken from a peer: (step or encode, call).
  using Place = std::pair<uint64_t, uint64_t>;

  void end_locked(int lost_rank);
  void throw_if_ended() const;
  void arrive();
  bool is_whole(int peer, const FrameKey& key) const;
  bool wait(SharedLinks* links, uint64_t seen, uint32_t peers, Clock::time_point deadline);
  void check_sender(int peer, const FrameKey& key) const;
  Slot& slot_of(int peer, const FrameKey& key, uint64_t offset, uint64_t total);
  std::vector<uint8_t> fresh_buffer(size_t bytes);
  std::vector<uint8_t> remove(std::map<Key, Slot>::iterator slot);

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<Key, Slot> slots_;
  std::map<std::pair<FrameKind, int>, Place> taken_;  // by kind and peer
  std::set<uint64_t> forgotten_;
  std::vector<std::vector<uint8_t>> spare_;
  std::shared_ptr<SharedLinks> links_;
  MailboxLimits limits_;
  uint64_t bytes_ = 0;
  size_t embeddings_ = 0;
  uint64_t epoch_ = 0;
  bool ended_ = true;
  int lost_rank_ = -1;
  std::atomic<uint64_t> arrivals_{0};
};

}  // namespace tessera
