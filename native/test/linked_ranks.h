// Ranks of one process whose frames are handed over, for tests of collectives.
#pragma once

#include <thread>
#include <vector>

#include "collective/all_reduce.h"
#include "core/thread_pool.h"
#include "test/testing.h"

namespace tessera::testing {

inline Clock::time_point in_ms(int ms) { return Clock::now() + std::chrono::milliseconds(ms); }

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

  // `embeddings`: so many may wait in a mailbox.
  explicit Ranks(int size, size_t embeddings = 0)
      : boxes(size), wires(size), scratch(size), times(size) {
    for (int rank = 0; rank < size; ++rank) {
      boxes[rank].begin(1, {rank, size, embeddings});
      wires[rank].ranks = this;
      wires[rank].rank = rank;
    }
  }
  int size() const { return static_cast<int>(boxes.size()); }
  Group group(int rank, bool bf16 = false) {
    return {rank, size(), bf16, &wires[rank], &boxes[rank], &scratch[rank]};
  }
};

inline void Wire::send(OutFrame frame) {
  for (const int peer : frame.peers)
    ranks->boxes[peer].deliver(rank, frame.key, frame.offset, frame.total,
                               frame.buffer.data() + kFrameHeadroom,
                               frame.buffer.size() - kFrameHeadroom);
}

// All ranks on threads of their own, `calls` collectives one behind the other, each over what the
// one before gave; results by rank.
inline std::vector<std::vector<float>> reduced(Ranks& ranks, std::vector<std::vector<float>> values,
                                               bool bf16, int calls = 1) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks.size(); ++rank)
    threads.emplace_back([&, rank] {
      ThreadPool pool(1);
      const Context context{&pool, detect_cpu_kind()};
      const Group group = ranks.group(rank, bf16);
      for (uint64_t call = 0; call < static_cast<uint64_t>(calls); ++call)
        all_reduce_add(context, group, {FrameKind::kCollective, 1, 1 + call / 10, call % 10},
                       values[rank], in_ms(60000), ranks.times[rank]);
    });
  for (std::thread& thread : threads) thread.join();
  return values;
}

inline std::vector<std::vector<float>> parts(int size, size_t count) {
  std::vector<std::vector<float>> out;
  for (int rank = 0; rank < size; ++rank)
    out.push_back(random_values(count, static_cast<uint32_t>(rank + count)));
  return out;
}

}  // namespace tessera::testing
