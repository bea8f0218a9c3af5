#include <atomic>
#include <cstdlib>

#include "core/buffer.h"
#include "core/cpu_kind.h"
#include "core/thread_pool.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

TEST("thread pool: every index once, whatever the number of threads") {
  for (const int threads : {1, 2, 5})
    for (const int count : {0, 1, 2, 7, 1000}) {
      const ThreadPool pool(threads);
      for (int round = 0; round < 20; ++round) {
        std::vector<std::atomic<int>> seen(count);
        pool.parallel_for(count, [&](int i) { seen[i].fetch_add(1); });
        for (const auto& one : seen) EXPECT(one.load() == 1, threads, " threads, ", count);
      }
    }
}

TEST("thread pool: a task's exception reaches the caller, and the pool works on") {
  for (const int threads : {1, 3}) {
    const ThreadPool pool(threads);
    EXPECT_ERROR("INVALID_ARGUMENT", "index 13",
                 pool.parallel_for(100, [](int i) { CHECK_ARGUMENT(i != 13, "index ", i); }));
    std::atomic<int> sum{0};
    pool.parallel_for(10, [&](int i) { sum += i; });
    EXPECT(sum.load() == 45);
  }
  EXPECT_ERROR("INVALID_ARGUMENT", "threads 0", ThreadPool pool(0));
}

TEST("buffers: aligned, zero, moved without a copy") {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{1000}, size_t{600000}, size_t{2500000}}) {
    Buffer<float> buffer(count);
    EXPECT(reinterpret_cast<size_t>(buffer.data()) % 64 == 0);
    bool zero = true;
    for (const float value : buffer) zero = zero && value == 0.0f;
    EXPECT(zero && buffer.size() == count);
    if (count > 0) buffer[count - 1] = 5.0f;
    const float* data = buffer.data();
    Buffer<float> moved = std::move(buffer);
    EXPECT(moved.data() == data && buffer.data() == nullptr && buffer.size() == 0);
    buffer = std::move(moved);
    EXPECT(buffer.data() == data);
  }
  EXPECT_ERROR("OUT_OF_MEMORY", "cannot be allocated", Buffer<char> buffer(size_t{1} << 60));
}

TEST("TESSERA_CPU forces a kind; an unknown one, or one this machine lacks, is refused") {
  setenv("TESSERA_CPU", "scalar", 1);
  EXPECT(detect_cpu_kind() == CpuKind::kScalar);
  setenv("TESSERA_CPU", "neon9000", 1);
  EXPECT_ERROR("INVALID_ARGUMENT", "must be scalar, avx2 or avx512", detect_cpu_kind());
  unsetenv("TESSERA_CPU");
}

TEST("a check's message has the values and the path in the repository") {
  EXPECT_ERROR("INTERNAL", "five is 5 (five == 4, native/test/core_test.cc:", {
    const int five = 5;
    CHECK(five == 4, "five is ", five);
  });
}

}  // namespace
}  // namespace tessera::testing
