#include "collective/all_reduce.h"

#include <future>
#include <thread>

#include "ops/ops.h"
#include "test/linked_ranks.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

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
