#include "collective/all_reduce.h"

#include <future>
#include <thread>

#include "ops/ops.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

struct Ranks;
struct Wire : Exchange {
  Ranks* ranks = nullptr;
  int rank = 0;
  void send(OutFrame frame) override;
};

struct Ranks {
  std::vector<Mailbox> boxes;
  std::vector<Wire> wires;
  std::vector<CollectiveScratch> scratch;
  std::vector<CollectiveTimes> times;

  explicit Ranks(int size) : boxes(size), wires(size), scratch(size), times(size) {
    for (int rank = 0; rank < size; ++rank) {
      boxes[rank].begin(1, {rank, size, 0});
      wires[rank].ranks = this;
      wires[rank].rank = rank;
    }
  }
  Group group(int rank, bool bf16) {
    return {rank, static_cast<int>(boxes.size()), bf16, &wires[rank], &boxes[rank], &scratch[rank]};
  }
};

void Wire::send(OutFrame frame) {
  for (const int peer : frame.peers)
    ranks->boxes[peer].deliver(rank, frame.key, frame.offset, frame.total,
                               frame.buffer.data() + kFrameHeadroom,
                               frame.buffer.size() - kFrameHeadroom);
}

// All ranks on threads of their own, `calls` collectives one after another; results by rank.
std::vector<std::vector<float>> reduced(Ranks& ranks, std::vector<std::vector<float>> values,
                                        bool bf16, int calls = 1) {
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < values.size(); ++rank)
    threads.emplace_back([&, rank] {
      ThreadPool pool(1);
      const Context context{&pool, detect_cpu_kind()};
      const Group group = ranks.group(static_cast<int>(rank), bf16);
      for (uint64_t call = 0; call < static_cast<uint64_t>(calls); ++call)
        all_reduce_add(context, group, {FrameKind::kCollective, 1, 1, call}, values[rank],
                       Clock::now() + std::chrono::seconds(20), ranks.times[rank]);
    });
  for (std::thread& thread : threads) thread.join();
  return values;
}

std::vector<std::vector<float>> parts(int size, size_t count) {
  std::vector<std::vector<float>> out;
  for (int rank = 0; rank < size; ++rank)
    out.push_back(random_values(count, static_cast<uint32_t>(rank + count)));
  return out;
}

float rounded(float value) { return from_bf16(to_bf16(value)); }

float tree(const std::vector<std::vector<float>>& values, size_t at, int first, int count,
           bool bf16) {
  if (count == 1) return bf16 ? rounded(values[first][at]) : values[first][at];
  return tree(values, at, first, count / 2, bf16) +
         tree(values, at, first + count / 2, count / 2, bf16);
}

// 16384 f32 are the last that go to everyone at once; 300000 need several frames.
constexpr size_t kCounts[] = {1, 15, 17, 1000, 16384, 16385, 40001, 600001};

TEST("all_reduce_add: the fixed tree at 2, 4 and 8 ranks, small and large, f32 and bf16 wire") {
  for (const int size : {2, 4, 8})
    for (const bool bf16 : {false, true})
      for (const size_t count : kCounts) {
        Ranks ranks(size);
        const auto values = parts(size, count);
        std::vector<float> wanted(count);
        for (size_t i = 0; i < count; ++i) wanted[i] = tree(values, i, 0, size, bf16);
        for (const auto& got : reduced(ranks, values, bf16))
          EXPECT(same_bits(got, wanted), size, " ranks, ", count, " values, bf16 ", bf16);
      }
}

TEST("all_reduce_add: bytes sent are the partials to all, or each range once and the sum once") {
  for (const int size : {2, 8}) {
    Ranks small(size), large(size);
    reduced(small, parts(size, 1000), false);
    reduced(large, parts(size, 64000), false);
    uint64_t sent = 0;
    for (int rank = 0; rank < size; ++rank) {
      EXPECT(small.times[rank].sent_bytes == 4000u * (size - 1), small.times[rank].sent_bytes);
      sent += large.times[rank].sent_bytes;
    }
    EXPECT(sent == 2u * 256000 * (size - 1), sent);
  }
}

TEST("all_reduce_add: many calls use the same memory again") {
  Ranks ranks(2);
  const auto values = parts(2, 100);
  const auto got = reduced(ranks, values, false, 3);
  const float first = values[0][0] + values[1][0];
  EXPECT(got[0][0] == (first + first) + (first + first));
  EXPECT(same_bits(got[0], got[1]));
}

TEST("all_reduce_add: a peer with another length is named") {
  Ranks ranks(2);
  ThreadPool pool(1);
  const Context context{&pool, detect_cpu_kind()};
  std::vector<float> other(7), own(8);
  const auto deadline = Clock::now() + std::chrono::milliseconds(50);
  CollectiveTimes times;
  std::thread peer([&] {
    ThreadPool mine(1);
    try {
      all_reduce_add({&mine, CpuKind::kScalar}, ranks.group(1, false),
                     {FrameKind::kCollective, 1, 1, 0}, other, deadline, ranks.times[1]);
    } catch (const Error&) {
    }
  });
  EXPECT_ERROR("INVALID_ARGUMENT", "rank 1 sent 28 bytes, must be 32",
               all_reduce_add(context, ranks.group(0, false), {FrameKind::kCollective, 1, 1, 0},
                              own, deadline, times));
  peer.join();
}

TEST("all_reduce_add: one rank alone does nothing") {
  Ranks ranks(1);
  const auto values = parts(1, 50);
  EXPECT(same_bits(reduced(ranks, values, true)[0], values[0]));
}

}  // namespace
}  // namespace tessera::testing
