#include "collective/mailbox.h"

#include <thread>

#include "test/testing.h"

namespace tessera::testing {
namespace {

constexpr uint8_t kData[8] = {1, 2, 3, 4, 5, 6, 7, 8};

FrameKey call(uint64_t step, uint64_t item, uint64_t epoch = 5) {
  return {FrameKind::kCollective, epoch, step, item};
}
FrameKey picture(uint64_t id) { return {FrameKind::kEmbedding, 5, 1, id}; }
Clock::time_point soon() { return Clock::now() + std::chrono::milliseconds(20); }
void whole(Mailbox& box, int peer, const FrameKey& key, size_t bytes = 8) {
  box.deliver(peer, key, 0, bytes, kData, bytes);
}

struct Box : Mailbox {
  Box() { begin(5, {1, 4, 2}); }
};

TEST(
    "pieces in order become the tensor; a piece out of order, beyond the end or twice is refused") {
  Box box;
  box.deliver(0, call(1, 0), 0, 8, kData, 5);
  EXPECT_ERROR("INVALID_ARGUMENT", "piece of 3 bytes at 4",
               box.deliver(0, call(1, 0), 4, 8, kData, 3));
  EXPECT_ERROR("INVALID_ARGUMENT", "bytes 5 + 4 of 8", box.deliver(0, call(1, 0), 5, 8, kData, 4));
  EXPECT_ERROR("INVALID_ARGUMENT", "of 9", box.deliver(0, call(1, 0), 5, 9, kData, 3));
  EXPECT_ERROR("PEER_TIMEOUT", "rank 0", box.take(0, call(1, 0), soon()));
  box.deliver(0, call(1, 0), 5, 8, kData + 5, 3);
  EXPECT_ERROR("INVALID_ARGUMENT", "piece of 8", whole(box, 0, call(1, 0)));
  EXPECT(box.take(0, call(1, 0), soon()) == std::vector<uint8_t>(kData, kData + 8));
  EXPECT_ERROR("INVALID_ARGUMENT", "was taken before", whole(box, 0, call(1, 0)));
  EXPECT_ERROR("INVALID_ARGUMENT", "begins at byte 4", box.deliver(0, call(1, 1), 4, 8, kData, 4));
}

TEST("frames of no peer, or of the rank itself, are refused; those of other epochs are dropped") {
  Box box;
  for (const int peer : {-1, 1, 4, 1000})
    EXPECT_ERROR("INVALID_ARGUMENT", "has no such peer", whole(box, peer, call(1, 0)));
  whole(box, 0, call(1, 0, 4));
  whole(box, 0, call(1, 0, 6));
  EXPECT_ERROR("PEER_TIMEOUT", "rank 0", box.take(0, call(1, 0), soon()));
}

TEST(
    "encoders beyond the group send embeddings only; an encode's collectives have an order of "
    "their own") {
  Box box;
  box.begin(5, {1, 4, 2, 0, 2});
  whole(box, 5, picture(7));
  std::vector<uint8_t> data;
  EXPECT(box.take_embedding(7, &data) && data.size() == 8);
  EXPECT_ERROR("INVALID_ARGUMENT", "rank 5", whole(box, 5, call(1, 0)));
  EXPECT_ERROR("INVALID_ARGUMENT", "rank 6", whole(box, 6, picture(8)));
  const FrameKey encode{FrameKind::kEncodeCollective, 5, 1, 0};
  whole(box, 0, call(9, 0));
  EXPECT(box.take(0, call(9, 0), soon()).size() == 8);
  whole(box, 0, encode);
  EXPECT(box.take(0, encode, soon()).size() == 8);
  EXPECT_ERROR("INVALID_ARGUMENT", "encode 1, call 0 was taken before", whole(box, 0, encode));
  EXPECT_ERROR("PEER_TIMEOUT", "(encode 2, call 0)",
               box.take(0, {FrameKind::kEncodeCollective, 5, 2, 0}, soon()));
}

TEST("a refused frame leaves the count of bytes as it was") {
  Box box;
  const uint64_t large = (uint64_t{4} << 30) + 1;
  EXPECT_ERROR("INVALID_ARGUMENT", "of 4294967297", box.deliver(0, call(1, 0), 0, large, kData, 8));
  whole(box, 0, call(1, 0));
  EXPECT(box.take(0, call(1, 0), soon()).size() == 8);
}

TEST("embeddings: bounded, taken once, forgotten before and after they come") {
  Box box;
  std::vector<uint8_t> data;
  whole(box, 0, picture(1));
  whole(box, 2, picture(2));
  EXPECT_ERROR("INVALID_ARGUMENT", "2 embeddings wait, limit 2", whole(box, 3, picture(3)));
  EXPECT(box.take_embedding(1, &data) && data.size() == 8);
  EXPECT(!box.take_embedding(1, &data));
  box.forget_embedding(2);
  EXPECT(!box.take_embedding(2, &data));
  box.forget_embedding(9);
  box.deliver(0, picture(9), 0, 8, kData, 4);
  box.deliver(0, picture(9), 4, 8, kData + 4, 4);
  EXPECT(!box.take_embedding(9, &data));
  EXPECT(!box.was_forgotten(9), "asked and answered");
  box.deliver(0, picture(10), 0, 8, kData, 4);
  box.forget_embedding(10);
  box.deliver(0, picture(10), 4, 8, kData + 4, 4);
  EXPECT(!box.take_embedding(10, &data), "half there when it was forgotten");
  box.forget_embedding(11);
  EXPECT(box.was_forgotten(11) && !box.was_forgotten(11));
  whole(box, 0, picture(12));
  whole(box, 0, picture(13));
  EXPECT(box.take_embedding(12, &data) && box.take_embedding(13, &data), "places are free again");
}

TEST("whoever waits is woken by an arrival, and by the end of the epoch") {
  Box box;
  std::thread sender([&] { whole(box, 3, call(2, 7)); });
  EXPECT(box.take(3, call(2, 7), Clock::now() + std::chrono::seconds(10)).size() == 8);
  sender.join();
  std::thread ender([&] { box.end(5, 2); });
  EXPECT_ERROR("PEER_LOST", "rank 2",
               box.take(3, call(3, 0), Clock::now() + std::chrono::seconds(10)));
  ender.join();
  box.end(5, 0);
  EXPECT_ERROR("PEER_LOST", "rank 2", box.check_running());
  whole(box, 0, call(4, 0));
  box.begin(6, {1, 4, 2});
  box.check_running();
  box.end(5, 0);
  box.check_running();
  box.stop();
  EXPECT_ERROR("EPOCH_ENDED", "epoch 6", box.check_running());
}

TEST("an empty tensor arrives") {
  Box box;
  box.deliver(0, call(1, 0), 0, 0, nullptr, 0);
  EXPECT(box.take(0, call(1, 0), soon()).empty());
}

}  // namespace
}  // namespace tessera::testing
