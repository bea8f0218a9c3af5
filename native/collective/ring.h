// One direction between two ranks: a ring of frames in shared memory, one producer and one consumer
// in two processes. Neither side trusts what the other one could have written there.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace tessera {

inline constexpr size_t kRingLine = 64;  // bytes; frames and their payloads begin at multiples

// Lies in shared memory, zero at first. Positions count bytes since the beginning.
struct RingState {
  alignas(kRingLine) std::atomic<uint64_t> written;  // the producer's
  alignas(kRingLine) std::atomic<uint64_t> read;     // the consumer's
  // The producer sleeps until there is room.
  alignas(kRingLine) std::atomic<uint32_t> producer_waits;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

// What stands before a payload.
struct alignas(kRingLine) RingFrame {
  uint32_t kind;   // of FrameKind
  uint32_t bytes;  // of the payload that follows
  uint64_t epoch, sequence, item;
  uint64_t offset, total;  // of the payload in its tensor, and the tensor's, bytes
};

class Ring {
 public:
  // The foremost frame; its payload may lie around the ring's end, in two parts.
  struct Front {
    RingFrame frame;
    std::span<const uint8_t> first, second;
  };

  Ring() = default;
  // `capacity` is a multiple of kRingLine. Both sides begin at 0.
  Ring(RingState* state, uint8_t* data, size_t capacity)
      : state_(state), data_(data), capacity_(capacity) {}

  // What a frame takes.
  static size_t space(size_t payload_bytes) {
    return sizeof(RingFrame) + (payload_bytes + kRingLine - 1) / kRingLine * kRingLine;
  }

  // Producer. write() needs room for frame.bytes.
  bool has_room(size_t payload_bytes);
  void write(const RingFrame& frame, const uint8_t* payload);
  // Before it sleeps, and after it did.
  void set_producer_waits(bool waits) { state_->producer_waits.store(waits ? 1 : 0); }

  // Consumer. Throws INVALID_ARGUMENT when what is there cannot be a frame.
  bool empty() const { return state_->written.load() == position_; }
  std::optional<Front> front() const;
  // True when the producer waits for the room this gives.
  bool pop(const Front& front);

 private:
  void put(uint64_t at, const uint8_t* from, size_t bytes);

  RingState* state_ = nullptr;
  uint8_t* data_ = nullptr;
  size_t capacity_ = 0;
  uint64_t position_ = 0;    // this side's own, whichever it is
  uint64_t read_known_ = 0;  // producer: what the consumer had read when last looked at
};

}  // namespace tessera
