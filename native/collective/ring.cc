#include "collective/ring.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"

namespace tessera {

bool Ring::has_room(size_t payload_bytes) {
  const uint64_t end = position_ + space(payload_bytes);
  if (end - read_known_ <= capacity_) return true;
  const uint64_t read = state_->read.load();
  CHECK_ARGUMENT(read >= read_known_ && read <= position_, "ring: ", read, " bytes were read of ",
                 position_);
  read_known_ = read;
  return end - read <= capacity_;
}

void Ring::put(uint64_t at, const uint8_t* from, size_t bytes) {
  const size_t start = at % capacity_;
  const size_t first = std::min(bytes, capacity_ - start);
  if (first > 0) std::memcpy(data_ + start, from, first);
  if (bytes > first) std::memcpy(data_, from + first, bytes - first);
}

void Ring::write(const RingFrame& frame, const uint8_t* payload) {
  put(position_, reinterpret_cast<const uint8_t*>(&frame), sizeof(frame));
  put(position_ + sizeof(frame), payload, frame.bytes);
  position_ += space(frame.bytes);
  state_->written.store(position_);
}

std::optional<Ring::Front> Ring::front() const {
  const uint64_t there = state_->written.load() - position_;
  if (there == 0) return std::nullopt;
  CHECK_ARGUMENT(there <= capacity_ && there >= sizeof(RingFrame) && there % kRingLine == 0,
                 "ring: ", there, " bytes are there, it has ", capacity_);
  Front front;
  std::memcpy(&front.frame, data_ + position_ % capacity_, sizeof(RingFrame));
  const size_t bytes = front.frame.bytes;
  CHECK_ARGUMENT(bytes <= there && space(bytes) <= there, "ring: a frame of ", bytes, " bytes, ",
                 there, " are there");
  const size_t start = (position_ + sizeof(RingFrame)) % capacity_;
  const size_t first = std::min(bytes, capacity_ - start);
  front.first = {data_ + start, first};
  front.second = {data_, bytes - first};
  return front;
}

bool Ring::pop(const Front& front) {
  position_ += space(front.frame.bytes);
  state_->read.store(position_);
  return state_->producer_waits.load() != 0 && state_->producer_waits.exchange(0) != 0;
}

}  // namespace tessera
