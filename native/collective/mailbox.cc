#include "collective/mailbox.h"

#include <cstring>

#include "collective/shared_links.h"
#include "core/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera {

namespace {

constexpr uint64_t kMaxBytes = uint64_t{4} << 30;  // of undelivered frames
constexpr size_t kMaxForgotten = 65536;            // ids; the lowest is dropped first
constexpr size_t kMaxSpare = 64;                   // buffers kept for later frames

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

std::string place_name(const FrameKey& key) {
  const bool encode = key.kind == FrameKind::kEncodeCollective;
  return (encode ? "encode " : "step ") + std::to_string(key.sequence) + ", call " +
         std::to_string(key.item);
}

void Mailbox::begin(uint64_t epoch, const MailboxLimits& limits) {
  std::lock_guard lock(mutex_);
  slots_.clear();
  forgotten_.clear();
  taken_.clear();
  links_.reset();
  limits_ = limits;
  bytes_ = 0;
  embeddings_ = 0;
  epoch_ = epoch;
  ended_ = false;
  lost_rank_ = -1;
}

void Mailbox::end(uint64_t epoch, int lost_rank) {
  std::lock_guard lock(mutex_);
  if (epoch == epoch_) end_locked(lost_rank);
}

void Mailbox::stop() {
  std::lock_guard lock(mutex_);
  end_locked(-1);
}

void Mailbox::end_locked(int lost_rank) {
  if (ended_) return;
  ended_ = true;
  lost_rank_ = lost_rank;
  arrive();
}

// Whoever waits looks again. With the mutex held.
void Mailbox::arrive() {
  arrivals_.fetch_add(1);
  arrived_.notify_all();
  if (links_ != nullptr) links_->wake();
}

void Mailbox::link(uint64_t epoch, std::shared_ptr<SharedLinks> links) {
  std::lock_guard lock(mutex_);
  if (epoch == epoch_) links_ = std::move(links);
}

std::shared_ptr<SharedLinks> Mailbox::links() const {
  std::lock_guard lock(mutex_);
  return links_;
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

void Mailbox::check_sender(int peer, const FrameKey& key) const {
  const bool embedding = key.kind == FrameKind::kEmbedding;
  const int senders = limits_.size + (embedding ? limits_.encoders : 0);
  CHECK_ARGUMENT(peer >= 0 && peer < senders && peer != limits_.rank, "frame of rank ", peer,
                 ": rank ", limits_.rank, " of ", limits_.size, " has no such peer");
  if (embedding) return;
  const auto taken = taken_.find({key.kind, peer});
  const Place place{key.sequence, key.item + 1};
  CHECK_ARGUMENT(taken == taken_.end() || place > taken->second, "frame of rank ", peer, ": ",
                 place_name(key), " was taken before");
}

// The slot a piece belongs to; the first piece opens it.
Mailbox::Slot& Mailbox::slot_of(int peer, const FrameKey& key, uint64_t offset, uint64_t total) {
  const Key name{static_cast<int>(key.kind), key.item, key.sequence, peer};
  const auto found = slots_.find(name);
  if (found != slots_.end()) return found->second;
  CHECK_ARGUMENT(offset == 0, "frame of rank ", peer, ": begins at byte ", offset);
  CHECK_ARGUMENT(bytes_ + total <= kMaxBytes, "frames of rank ", peer, ": ", bytes_ + total,
                 " bytes wait, limit ", kMaxBytes);
  if (key.kind == FrameKind::kEmbedding) {
    CHECK_ARGUMENT(embeddings_ < limits_.embeddings, "frame of rank ", peer, ": ", embeddings_,
                   " embeddings wait, limit ", limits_.embeddings);
    ++embeddings_;
  }
  bytes_ += total;
  return slots_.emplace(name, Slot{fresh_buffer(total), 0}).first->second;
}

void Mailbox::deliver(int peer, const FrameKey& key, uint64_t offset, uint64_t total,
                      const uint8_t* data, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (key.epoch != epoch_ || ended_) return;
  check_sender(peer, key);
  CHECK_ARGUMENT(offset <= total && bytes <= total - offset && total <= kMaxBytes, "frame of rank ",
                 peer, ": bytes ", offset, " + ", bytes, " of ", total);
  if (key.kind == FrameKind::kEmbedding && forgotten_.contains(key.item)) {
    if (offset + bytes == total) forgotten_.erase(key.item);
    return;
  }
  Slot& slot = slot_of(peer, key, offset, total);
  CHECK_ARGUMENT(slot.data.size() == total && slot.received == offset && (bytes > 0 || total == 0),
                 "frame of rank ", peer, ": piece of ", bytes, " bytes at ", offset, " of ", total,
                 " after ", slot.received, " of ", slot.data.size());
  if (bytes > 0) std::memcpy(slot.data.data() + offset, data, bytes);
  slot.received += bytes;
  if (slot.received == total) arrive();
}

std::vector<uint8_t> Mailbox::fresh_buffer(size_t bytes) {
  std::vector<uint8_t> buffer;
  if (!spare_.empty()) {
    buffer = std::move(spare_.back());
    spare_.pop_back();
  }
  buffer.resize(bytes);
  return buffer;
}

void Mailbox::recycle(std::vector<uint8_t> data) {
  std::lock_guard lock(mutex_);
  if (spare_.size() < kMaxSpare && data.capacity() <= 2 * kFramePayload)
    spare_.push_back(std::move(data));
}

std::vector<uint8_t> Mailbox::remove(std::map<Key, Slot>::iterator slot) {
  if (std::get<0>(slot->first) == static_cast<int>(FrameKind::kEmbedding)) --embeddings_;
  std::vector<uint8_t> data = std::move(slot->second.data);
  bytes_ -= data.size();
  slots_.erase(slot);
  return data;
}

bool Mailbox::is_whole(int peer, const FrameKey& key) const {
  const auto found = slots_.find({static_cast<int>(key.kind), key.item, key.sequence, peer});
  return found != slots_.end() && found->second.received == found->second.data.size();
}

void Mailbox::await(std::span<const int> peers, const FrameKey& key, Clock::time_point deadline) {
  const std::shared_ptr<SharedLinks> links = this->links();
  while (true) {
    if (links != nullptr) links->deliver_all(*this);
    const uint64_t seen = arrivals_.load();
    int first = -1;
    uint32_t missing = 0;
    {
      std::lock_guard lock(mutex_);
      throw_if_ended();
      for (const int peer : peers) {
        if (is_whole(peer, key)) continue;
        if (first < 0) first = peer;
        missing |= 1u << peer;
      }
    }
    if (missing == 0) return;
    if (!wait(links.get(), seen, missing, deadline))
      throw Error(
          "PEER_TIMEOUT",
          "rank " + std::to_string(first) + " did not send in time (" + place_name(key) + ")",
          first);
  }
}

std::vector<uint8_t> Mailbox::take(int peer, const FrameKey& key, Clock::time_point deadline) {
  await({&peer, 1}, key, deadline);
  std::lock_guard lock(mutex_);
  throw_if_ended();
  taken_[{key.kind, peer}] = {key.sequence, key.item + 1};
  return remove(slots_.find({static_cast<int>(key.kind), key.item, key.sequence, peer}));
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

void Mailbox::forget_embedding(uint64_t id) {
  std::lock_guard lock(mutex_);
  const int kind = static_cast<int>(FrameKind::kEmbedding);
  const auto found = slots_.lower_bound({kind, id, 0, -1});
  const bool here =
      found != slots_.end() && std::get<0>(found->first) == kind && std::get<1>(found->first) == id;
  const bool whole = here && found->second.received == found->second.data.size();
  if (here) remove(found);
  if (whole) return;
  forgotten_.insert(id);
  if (forgotten_.size() > kMaxForgotten) forgotten_.erase(forgotten_.begin());
}

bool Mailbox::was_forgotten(uint64_t id) {
  std::lock_guard lock(mutex_);
  return forgotten_.erase(id) > 0;
}

bool Mailbox::wait_arrival(uint64_t seen, Clock::time_point deadline) {
  const std::shared_ptr<SharedLinks> links = this->links();
  if (links != nullptr) links->deliver_all(*this);
  return wait(links.get(), seen, SharedLinks::kNobody, deadline);
}

// `peers`: bits of those whose frames are waited for.
bool Mailbox::wait(SharedLinks* links, uint64_t seen, uint32_t peers, Clock::time_point deadline) {
  if (links != nullptr) {
    const bool came = links->wait(peers, deadline, [&] { return arrivals_.load() != seen; });
    check_running();
    return came;
  }
  const Clock::time_point polled = Clock::now() + std::chrono::microseconds(limits_.spin_us);
  while (arrivals_.load() == seen && Clock::now() < polled) relax();
  std::unique_lock lock(mutex_);
  const bool came = arrived_.wait_until(lock, deadline, [&] { return arrivals_.load() != seen; });
  throw_if_ended();
  return came;
}

}  // namespace tessera
