#include "core/thread_pool.h"

#include <atomic>
#include <cfenv>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera {

namespace {

// Turns of waiting before a thread sleeps: some tens of microseconds, so that ranks which share
// cores do not starve.
constexpr int kSpinTurns = 2000;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

void set_float_mode() {
  std::fesetround(FE_TONEAREST);
#if defined(__x86_64__)
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_OFF);
  _mm_setcsr(_mm_getcsr() & ~0x0040u);  // denormals are not taken for zero
#endif
}

// A job is published by raising `generation`; threads take indices from `next` until `count` is
// reached.
struct ThreadPool::State {
  int threads = 1;
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable finished;
  std::atomic<uint64_t> generation{0};
  std::atomic<bool> stopping{false};
  TaskRef task{};
  int count = 0;
  std::atomic<int> next{0};
  std::atomic<int> busy{0};
  std::exception_ptr error;

  // The first exception is kept for the caller; what is left of the job is skipped.
  void drain() {
    try {
      for (int i = next.fetch_add(1); i < count; i = next.fetch_add(1)) task.call(task.of, i);
    } catch (...) {
      next.store(count);
      std::lock_guard lock(mutex);
      if (error == nullptr) error = std::current_exception();
    }
  }

  uint64_t await_job(uint64_t seen) {
    for (int turn = 0; turn < kSpinTurns; ++turn) {
      if (generation.load(std::memory_order_acquire) != seen || stopping.load()) break;
      relax();
    }
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return generation.load() != seen || stopping.load(); });
    return generation.load();
  }

  void finish_one() {
    if (busy.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    std::lock_guard lock(mutex);
    finished.notify_one();
  }

  void run() {
    set_float_mode();
    uint64_t seen = 0;
    while (true) {
      seen = await_job(seen);
      if (stopping.load()) return;
      drain();
      finish_one();
    }
  }

  void stop() {
    {
      std::lock_guard lock(mutex);
      stopping.store(true);
      wake.notify_all();
    }
    for (std::thread& worker : workers) worker.join();
    workers.clear();
  }

  void await_workers() {
    for (int turn = 0; turn < kSpinTurns; ++turn) {
      if (busy.load(std::memory_order_acquire) == 0) return;
      relax();
    }
    std::unique_lock lock(mutex);
    finished.wait(lock, [&] { return busy.load(std::memory_order_acquire) == 0; });
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  CHECK_ARGUMENT(threads >= 1 && threads <= 1024, "threads ", threads, ": must be 1…1024");
  state_->threads = threads;
  State* state = state_.get();
  try {
    for (int i = 1; i < threads; ++i) state->workers.emplace_back([state] { state->run(); });
  } catch (...) {
    state->stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { state_->stop(); }

int ThreadPool::threads() const { return state_->threads; }

void ThreadPool::run(int count, TaskRef task) const {
  if (state_->workers.empty() || count <= 1) {
    for (int i = 0; i < count; ++i) task.call(task.of, i);
    return;
  }
  {
    std::lock_guard lock(state_->mutex);
    state_->task = task;
    state_->count = count;
    state_->next.store(0);
    state_->busy.store(static_cast<int>(state_->workers.size()));
    state_->generation.fetch_add(1, std::memory_order_release);
    state_->wake.notify_all();
  }
  state_->drain();
  state_->await_workers();
  if (state_->error != nullptr) std::rethrow_exception(std::exchange(state_->error, nullptr));
}

}  // namespace tessera
