// Ranks of one machine that reach each other through shared memory, for one epoch. Each rank makes
// a shared file: a ring for every peer that sends to it, and the word it sleeps on.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "collective/mailbox.h"
#include "collective/ring.h"
#include "collective/shared_file.h"
#include "ops/ops.h"

namespace tessera {

// Written by a rank for one peer; the peer reads it and says it back by another way.
using Nonce = std::array<uint8_t, 16>;

inline constexpr size_t kRingBytes = 512 << 10;  // of a direction
// A wait polls so long where each thread of these ranks has a core of its own.
inline constexpr int kSharedSpinUs = 100;

struct SharedSettings {
  std::string dir;  // where shared files are made and looked for
  uint64_t epoch = 0;
  int rank = 0, size = 1;
  int threads = 1;  // of this rank
  size_t ring_bytes = kRingBytes;
};

class SharedLinks {
 public:
  // A bit that is no peer's, to wait with for what comes by other ways.
  static constexpr uint32_t kNobody = 1u << 31;

  // Makes this rank's shared file. Throws NO_SHARED_MEMORY.
  explicit SharedLinks(const SharedSettings& settings);
  ~SharedLinks();

  // Joining; one thread, before any frame.
  const std::string& name() const { return own_->name(); }
  // Maps the shared file of `peer` and reads what stands there for this rank. Throws
  // NO_SHARED_MEMORY.
  Nonce open(int peer, const std::string& name);
  // Whether `peer` has read this rank's shared file.
  bool proves(int peer, std::span<const uint8_t> nonce) const;
  // Frames to and from `peers` go this way from now on, those of others do not; the shared file's
  // name is removed. `asked_spin_us` below 0: polls where each thread of all these ranks has a
  // core.
  void start(const std::vector<int>& peers, int cores, int asked_spin_us);
  int spin_us() const { return spin_us_; }

  bool reaches(int peer) const { return peers_[peer].started; }

  // (executor)
  // Copies a tensor to `peer` piece by piece; while there is no room, what comes in is delivered.
  // Returns how long it waited, ns. Throws PEER_TIMEOUT, and what the mailbox's end says.
  uint64_t send(Mailbox& mailbox, int peer, const FrameKey& key, const uint8_t* data, size_t bytes,
                Clock::time_point deadline);
  // Delivers every frame that has come.
  void deliver_all(Mailbox& mailbox);
  // Waits until frames have come (asleep: of all peers in `mask`), `changed()`, or the deadline.
  // False when that passed.
  bool wait(uint32_t mask, Clock::time_point deadline, const std::function<bool()>& changed);

  // Any thread: ends a wait. What `changed` looks at is changed before.
  void wake();

 private:
  struct Head;
  struct Peer {
    std::unique_ptr<SharedFile> file;  // the peer's
    Ring to, from;
    bool started = false;
  };

  Head& head_of(const SharedFile& file) const;
  Ring ring(const SharedFile& file, int owner, int sender) const;
  bool anything() const;
  int tell_core();
  bool is_on(int core, uint32_t mask) const;
  void deliver_from(Mailbox& mailbox, int peer);
  void announce(int peer);
  uint64_t await_room(Mailbox& mailbox, int peer, const FrameKey& key, size_t bytes,
                      Clock::time_point deadline);

  SharedSettings settings_;
  std::unique_ptr<SharedFile> own_;
  std::array<Peer, kMaxLanes> peers_;
  std::vector<int> started_;
  int spin_us_ = 0;
};

}  // namespace tessera
