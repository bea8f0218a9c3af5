#include "collective/ring.h"

#include <deque>
#include <thread>

#include "test/testing.h"

namespace tessera::testing {
namespace {

constexpr size_t kCapacity = 1024;

// Both ends of one ring.
struct Ends {
  RingState state{};
  alignas(kRingLine) uint8_t data[kCapacity] = {};
  Ring to{&state, data, kCapacity};
  Ring from{&state, data, kCapacity};
};

RingFrame frame(uint64_t item, size_t bytes) {
  return {0, static_cast<uint32_t>(bytes), 1, 2, item, 0, bytes};
}

std::vector<uint8_t> content(uint64_t item, size_t bytes) {
  std::vector<uint8_t> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(item * 31 + i * 7);
  return out;
}

std::vector<uint8_t> payload(const Ring::Front& front) {
  std::vector<uint8_t> out(front.first.begin(), front.first.end());
  out.insert(out.end(), front.second.begin(), front.second.end());
  return out;
}

TEST("a ring: frames of every length come out as they went in, around the end many times") {
  Ends ends;
  std::mt19937 random(7);
  std::deque<std::pair<uint64_t, size_t>> inside;
  uint64_t next = 0;
  size_t split = 0;
  for (int turn = 0; turn < 20000; ++turn) {
    const size_t bytes = random() % (kCapacity - kRingLine + 1);
    if (ends.to.has_room(bytes)) {
      ends.to.write(frame(next, bytes), content(next, bytes).data());
      inside.emplace_back(next++, bytes);
    }
    if (random() % 2 == 0 || inside.empty()) continue;
    const auto front = ends.from.front();
    EXPECT(front.has_value() && front->frame.item == inside.front().first);
    EXPECT(payload(*front) == content(inside.front().first, inside.front().second), "frame ",
           inside.front().first);
    if (!front->second.empty()) ++split;
    EXPECT(!ends.from.pop(*front), "nobody waits");
    inside.pop_front();
  }
  EXPECT(next > 2000 && split > 200, next, " frames, ", split, " around the end");
}

TEST("a ring: a full one has no room until its reader pops, and tells of a writer that waits") {
  Ends ends;
  EXPECT(ends.from.empty() && !ends.from.front().has_value());
  EXPECT(!ends.to.has_room(kCapacity - kRingLine + 1) && ends.to.has_room(kCapacity - kRingLine));
  ends.to.write(frame(0, kCapacity - kRingLine), content(0, kCapacity - kRingLine).data());
  EXPECT(!ends.to.has_room(0) && !ends.from.empty());
  ends.to.set_producer_waits(true);
  EXPECT(ends.from.pop(*ends.from.front()), "it waits");
  EXPECT(ends.to.has_room(kCapacity - kRingLine) && ends.from.empty());
  ends.to.write(frame(1, 0), nullptr);
  EXPECT(!ends.from.pop(*ends.from.front()), "it was told");
}

TEST("a ring: a writer and a reader at the same time") {
  Ends ends;
  constexpr uint64_t kFrames = 4000;
  std::thread writer([&] {
    for (uint64_t i = 0; i < kFrames; ++i) {
      const size_t bytes = i * 37 % 500;
      while (!ends.to.has_room(bytes)) std::this_thread::yield();
      ends.to.write(frame(i, bytes), content(i, bytes).data());
    }
  });
  uint64_t wrong = 0;
  for (uint64_t i = 0; i < kFrames; ++i) {
    while (ends.from.empty()) std::this_thread::yield();
    const auto front = ends.from.front();
    if (front->frame.item != i || payload(*front) != content(i, i * 37 % 500)) ++wrong;
    ends.from.pop(*front);
  }
  writer.join();
  EXPECT(wrong == 0, wrong);
}

TEST("a ring: what the other side cannot have written or read is refused, not followed") {
  Ends more;
  more.state.written = kCapacity + kRingLine;
  EXPECT_ERROR("INVALID_ARGUMENT", "1088 bytes are there", more.from.front());
  Ends crooked;
  crooked.state.written = 65;
  EXPECT_ERROR("INVALID_ARGUMENT", "65 bytes are there", crooked.from.front());
  Ends longer;
  longer.to.write(frame(0, 64), content(0, 64).data());
  reinterpret_cast<RingFrame*>(longer.data)->bytes = 65;
  EXPECT_ERROR("INVALID_ARGUMENT", "a frame of 65 bytes, 128 are there", longer.from.front());
  reinterpret_cast<RingFrame*>(longer.data)->bytes = 0xffffffff;
  EXPECT_ERROR("INVALID_ARGUMENT", "a frame of 4294967295 bytes", longer.from.front());
  Ends ahead;
  ahead.state.read = 64;
  EXPECT_ERROR("INVALID_ARGUMENT", "64 bytes were read of 0", ahead.to.has_room(kCapacity));
}

}  // namespace
}  // namespace tessera::testing
