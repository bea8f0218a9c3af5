#include "collective/shared_links.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "collective/all_reduce.h"
#include "test/linked_ranks.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

// A folder that is removed with it.
struct Folder {
  std::string path;
  Folder() {
    char name[] = "/tmp/tessera-links-XXXXXX";
    CHECK(mkdtemp(name) != nullptr, "no temporary folder");
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  size_t files() const {
    return std::distance(std::filesystem::directory_iterator(path),
                         std::filesystem::directory_iterator());
  }
};

SharedSettings settings(const Folder& folder, int rank, int size, size_t ring_bytes = kRingBytes) {
  return {folder.path, 1, rank, size, 1, ring_bytes};
}

// Ranks whose pairs share memory where `shares` says so; the others' frames are handed over.
struct SharingRanks : Ranks {
  using Shares = std::function<bool(int a, int b)>;
  Folder folder;
  std::vector<std::shared_ptr<SharedLinks>> links;
  std::vector<std::vector<int>> opened;

  explicit SharingRanks(
      int size, int spin_us, size_t ring_bytes = kRingBytes,
      const Shares& shares = [](int, int) { return true; })
      : Ranks(size, 1) {
    for (int rank = 0; rank < size; ++rank)
      links.push_back(std::make_shared<SharedLinks>(settings(folder, rank, size, ring_bytes)));
    for (int rank = 0; rank < size; ++rank) {
      std::vector<int> peers;
      for (int peer = 0; peer < size; ++peer)
        if (peer != rank && shares(std::min(rank, peer), std::max(rank, peer))) {
          const Nonce nonce = links[rank]->open(peer, links[peer]->name());
          EXPECT(links[peer]->proves(rank, nonce));
          peers.push_back(peer);
        }
      opened.push_back(peers);
    }
    for (int rank = 0; rank < size; ++rank) {
      links[rank]->start(opened[rank], 1, spin_us);
      boxes[rank].link(1, links[rank]);
    }
  }
};

const SharingRanks::Shares kNone = [](int, int) { return false; };
// Rank 1 is on another machine; of two ranks none shares, of eight 6 × 7 / 2 pairs do.
const SharingRanks::Shares kButOne = [](int a, int b) { return a != 1 && b != 1; };

TEST("all_reduce_add through shared memory, by frames and by both gives the same bits") {
  for (const int size : {2, 4, 8})
    for (const bool bf16 : {false, true})
      // 600001 values are more than a ring takes; 16385 go by owner.
      for (const size_t count : {1, 17, 1000, 16384, 16385, 600001}) {
        const auto values = parts(size, count);
        SharingRanks frames(size, 0, kRingBytes, kNone), memory(size, 0);
        SharingRanks spinning(size, 50), mixed(size, 0, 64 << 10, kButOne);
        const auto wanted = reduced(frames, values, bf16);
        for (SharingRanks* one : {&memory, &spinning, &mixed}) {
          const auto got = reduced(*one, values, bf16);
          for (int rank = 0; rank < size; ++rank)
            EXPECT(same_bits(got[rank], wanted[rank]), size, " ranks, ", count, " values, rank ",
                   rank, ", bf16 ", bf16);
        }
        EXPECT(memory.times[0].sent_bytes == frames.times[0].sent_bytes);
      }
}

TEST("many collectives of eight ranks one behind the other, in rings that hold pieces of one") {
  // Sums grow eightfold a call: no more calls than f32 has room for.
  const auto same = [](size_t count, int calls, size_t ring_bytes,
                       const SharingRanks::Shares& shares) {
    const auto values = parts(8, count);
    SharingRanks frames(8, 0, kRingBytes, kNone), rings(8, 5, ring_bytes, shares);
    const auto wanted = reduced(frames, values, false, calls);
    const auto got = reduced(rings, values, false, calls);
    for (int rank = 0; rank < 8; ++rank)
      EXPECT(same_bits(got[rank], wanted[rank]), "rank ", rank, ", rings of ", ring_bytes);
  };
  same(500, 10, 4 * kRingLine, [](int, int) { return true; });
  same(3000, 35, 8 << 10, kButOne);
}

TEST("the names of shared files are gone when all have started, and when one never does") {
  Folder folder;
  {
    SharedLinks left(settings(folder, 0, 2)), right(settings(folder, 1, 2));
    EXPECT(folder.files() == 2, folder.files());
    left.open(1, right.name());
    right.open(0, left.name());
    left.start({1}, 1, -1);
    EXPECT(folder.files() == 1, folder.files());
    EXPECT(left.reaches(1) && !right.reaches(0));
  }
  EXPECT(folder.files() == 0, folder.files());
}

TEST(
    "a shared file of a process that ended is removed by the next one; young ones and those in use "
    "stay") {
  Folder folder;
  const auto path = [&](const std::string& name) { return folder.path + "/" + name; };
  const auto put = [&](const std::string& name) { std::ofstream(path(name)) << "x"; };
  const auto age = [&](const std::string& name) {
    std::filesystem::last_write_time(
        path(name), std::filesystem::file_time_type::clock::now() - std::chrono::minutes(2));
  };
  const std::string stale = "tessera-" + std::string(32, 'a'),
                    young = "tessera-" + std::string(32, 'b');
  const auto used = SharedFile::create(folder.path, 4096);
  for (const std::string& name : {stale, young, std::string("other")}) put(name);
  for (const std::string& name : {stale, used->name(), std::string("other")}) age(name);
  const auto made = SharedFile::create(folder.path, 4096);
  EXPECT(!std::filesystem::exists(path(stale)));
  for (const std::string& name : {young, std::string("other"), used->name(), made->name()})
    EXPECT(std::filesystem::exists(path(name)), name);
}

TEST("polling: where each thread has a core, and as long as it was asked for") {
  Folder folder;
  const auto spin = [&](int cores, int asked) {
    SharedLinks left(settings(folder, 0, 2)), right(settings(folder, 1, 2));
    left.open(1, right.name());
    left.start({1}, cores, asked);
    return left.spin_us();
  };
  EXPECT(spin(2, -1) == kSharedSpinUs && spin(1, -1) == 0);
  EXPECT(spin(1, 7) == 7 && spin(2, 0) == 0);
}

TEST("what is no shared file of the peer is not opened, and nothing outside the folder is") {
  Folder folder, elsewhere;
  SharedLinks own(settings(folder, 0, 2)), peer(settings(elsewhere, 1, 2));
  SharedLinks other(settings(folder, 1, 2, 2 * kRingBytes)), third(settings(folder, 0, 2));
  EXPECT_ERROR("NO_SHARED_MEMORY", "cannot be opened: No such file", own.open(1, peer.name()));
  EXPECT_ERROR("NO_SHARED_MEMORY", "bytes, must have", own.open(1, other.name()));
  EXPECT_ERROR("NO_SHARED_MEMORY", "is no shared file of rank 1 of 2", own.open(1, third.name()));
  EXPECT_ERROR("NO_SHARED_MEMORY", "is no name", own.open(1, "../" + other.name().substr(3)));
  EXPECT_ERROR("NO_SHARED_MEMORY", "is no name", own.open(1, "passwd"));
  const std::string name = other.name().substr(0, 8) + std::string(32, '0');
  std::filesystem::create_symlink(folder.path + "/" + third.name(), folder.path + "/" + name);
  EXPECT_ERROR("NO_SHARED_MEMORY", "cannot be opened", own.open(1, name));
  EXPECT_ERROR("NO_SHARED_MEMORY", "cannot be made",
               SharedLinks({folder.path + "/none", 1, 0, 2, 1, kRingBytes}));
}

TEST("a nonce proves one peer, whole and of one shared file") {
  Folder folder;
  SharedLinks left(settings(folder, 0, 4)), right(settings(folder, 1, 4));
  SharedLinks again(settings(folder, 0, 4));
  const Nonce read = right.open(0, left.name());
  EXPECT(left.proves(1, read));
  EXPECT(!left.proves(2, read) && !again.proves(1, read));
  EXPECT(!left.proves(1, {}) && !left.proves(1, std::span(read).first(15)));
}

FrameKey call(uint64_t step) { return {FrameKind::kCollective, 1, step, 0}; }

TEST("a wait ends by its deadline naming the first that is missing, and by the epoch's end") {
  for (const int spin_us : {0, 50}) {
    SharingRanks ranks(4, spin_us);
    CollectiveTimes times;
    const uint8_t byte = 1;
    send_tensor(ranks.group(1), {0}, call(1), &byte, 1, in_ms(1000), times);
    const int peers[] = {1, 2, 3};
    EXPECT_ERROR("PEER_TIMEOUT", "rank 2 did not send in time (step 1, call 0)",
                 ranks.boxes[0].await(peers, call(1), in_ms(20)));
    std::thread ender([&] { ranks.boxes[0].end(1, 3); });
    EXPECT_ERROR("PEER_LOST", "rank 3", ranks.boxes[0].await(peers, call(1), in_ms(60000)));
    ender.join();
  }
}

TEST("who waits for room is woken by the reader, by its deadline, and by the epoch's end") {
  const std::vector<uint8_t> large(1 << 20, 7);
  const auto send = [&](Ranks& ranks, int ms) {
    CollectiveTimes times;
    send_tensor(ranks.group(0), {1}, call(1), large.data(), large.size(), in_ms(ms), times);
    return times.wait_ns;
  };
  SharingRanks read(2, 0);
  std::thread reader([&] { EXPECT(read.boxes[1].take(0, call(1), in_ms(60000)) == large); });
  EXPECT(send(read, 60000) > 0);
  reader.join();
  SharingRanks late(2, 0);
  EXPECT_ERROR("PEER_TIMEOUT", "rank 1 did not read in time (step 1, call 0)", send(late, 20));
  SharingRanks ended(2, 0);
  std::thread ender([&] { ended.boxes[0].end(1, 1); });
  EXPECT_ERROR("PEER_LOST", "rank 1", send(ended, 60000));
  ender.join();
}

TEST("frames by message and embeddings wake who waits on memory") {
  SharingRanks ranks(2, 0);
  std::thread sender([&] {
    const uint8_t byte = 5;
    CollectiveTimes times;
    const FrameKey picture{FrameKind::kEmbedding, 1, 1, 9};
    send_tensor(ranks.group(0), {1}, picture, &byte, 1, in_ms(1000), times);
  });
  std::vector<uint8_t> data;
  while (!ranks.boxes[1].take_embedding(9, &data))
    EXPECT(ranks.boxes[1].wait_arrival(0, in_ms(60000)));
  EXPECT(data == std::vector<uint8_t>{5});
  sender.join();
}

TEST("a rank that died while it wrote has sent nothing; its successor's epoch has other rings") {
  SharingRanks ranks(2, 0);
  const std::vector<uint8_t> large(1 << 20, 7);
  CollectiveTimes times;
  // The ring is full of a tensor's beginning; no more comes.
  EXPECT_ERROR(
      "PEER_TIMEOUT", "rank 1",
      send_tensor(ranks.group(0), {1}, call(1), large.data(), large.size(), in_ms(5), times));
  EXPECT_ERROR("PEER_TIMEOUT", "rank 0", ranks.boxes[1].take(0, call(1), in_ms(5)));
  ranks.boxes[1].begin(2, {1, 2, 1});
  EXPECT(ranks.boxes[1].links() == nullptr);
  ranks.boxes[1].link(1, ranks.links[1]);
  EXPECT(ranks.boxes[1].links() == nullptr, "of an older epoch");
}

}  // namespace
}  // namespace tessera::testing
