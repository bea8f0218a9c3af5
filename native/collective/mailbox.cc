#include "collective/mailbox.h"

#include <cstring>

#include "core/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera {

namespace {

constexpr uint64_t kMaxBytes = uint64_t{4} << 30;  // of undelivered frames
constexpr int kSpinTurns = 2000;                   // some tens of microseconds

}  // namespace

void Mailbox::begin(uint64_t epoch) {
  std::lock_guard lock(mutex_);
  slots_.clear();
  bytes_ = 0;
  epoch_ = epoch;
  ended_ = false;
  lost_rank_ = -1;
}

void Mailbox::end(uint64_t epoch, int lost_rank) {
  std::lock_guard lock(mutex_);
  if (epoch != epoch_ || ended_) return;
  ended_ = true;
  lost_rank_ = lost_rank;
  arrivals_.fetch_add(1);
  arrived_.notify_all();
}

void Mailbox::throw_if_ended() const {
  if (!ended_) return;
  if (lost_rank_ >= 0)
    throw Error("PEER_LOST", "rank " + std::to_string(lost_rank_) + " is lost", lost_rank_);
  throw Error("EPOCH_ENDED", "epoch " + std::to_string(epoch_) + " has ended");
}

void Mailbox::check_running() const {
  std::lock_guard lock(mutex_);
  throw_if_ended();
}

void Mailbox::deliver(int peer, const FrameKey& key, uint64_t offset, uint64_t total,
                      const uint8_t* data, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (key.epoch != epoch_ || ended_) return;
  CHECK_ARGUMENT(offset <= total && bytes <= total - offset && total <= kMaxBytes, "frame of rank ",
                 peer, ": bytes ", offset, " + ", bytes, " of ", total);
  const Key name{static_cast<int>(key.kind), key.item, key.sequence, peer};
  CHECK_ARGUMENT(slots_.contains(name) || bytes_ + total <= kMaxBytes, "frames of rank ", peer,
                 ": ", bytes_ + total, " bytes wait, limit ", kMaxBytes);
  const auto [slot, fresh] = slots_.try_emplace(name);
  if (fresh) {
    slot->second.data.resize(total);
    bytes_ += total;
  }
  CHECK_ARGUMENT(slot->second.data.size() == total && slot->second.received == offset,
                 "frame of rank ", peer, ": piece at ", offset, " of ", total, " after ",
                 slot->second.received, " of ", slot->second.data.size());
  if (bytes > 0) std::memcpy(slot->second.data.data() + offset, data, bytes);
  slot->second.received += bytes;
  if (slot->second.received == total) {
    arrivals_.fetch_add(1);
    arrived_.notify_all();
  }
}

std::vector<uint8_t> Mailbox::remove(std::map<Key, Slot>::iterator slot) {
  std::vector<uint8_t> data = std::move(slot->second.data);
  bytes_ -= data.size();
  slots_.erase(slot);
  return data;
}

std::vector<uint8_t> Mailbox::take(int peer, const FrameKey& key, Clock::time_point deadline) {
  const Key wanted{static_cast<int>(key.kind), key.item, key.sequence, peer};
  while (true) {
    const uint64_t seen = arrivals_.load();
    {
      std::lock_guard lock(mutex_);
      throw_if_ended();
      const auto found = slots_.find(wanted);
      if (found != slots_.end() && found->second.received == found->second.data.size())
        return remove(found);
    }
    if (!wait_arrival(seen, deadline))
      throw Error("PEER_TIMEOUT",
                  "rank " + std::to_string(peer) + " did not send in time (step " +
                      std::to_string(key.sequence) + ", call " + std::to_string(key.item) + ")",
                  peer);
  }
}

bool Mailbox::take_embedding(uint64_t id, std::vector<uint8_t>* data) {
  std::lock_guard lock(mutex_);
  const int kind = static_cast<int>(FrameKind::kEmbedding);
  const auto found = slots_.lower_bound({kind, id, 0, -1});
  if (found == slots_.end() || std::get<0>(found->first) != kind ||
      std::get<1>(found->first) != id || found->second.received != found->second.data.size())
    return false;
  *data = remove(found);
  return true;
}

bool Mailbox::wait_arrival(uint64_t seen, Clock::time_point deadline) {
  for (int turn = 0; turn < kSpinTurns && arrivals_.load() == seen; ++turn) {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }
  std::unique_lock lock(mutex_);
  const bool came = arrived_.wait_until(lock, deadline, [&] { return arrivals_.load() != seen; });
  throw_if_ended();
  return came;
}

}  // namespace tessera
