// A pool of threads for the inside of ops. The caller takes part; one caller at a time.
#pragma once

#include <functional>
#include <memory>

namespace tessera {

class ThreadPool {
 public:
  // `threads` counts the caller, at least 1. Workers set the floating-point mode (no flush to zero,
  // round to nearest).
  explicit ThreadPool(int threads);
  ~ThreadPool();
  int threads() const;
  // Runs task(i) for i in [0, count) on all threads, in any order; returns when all are done. Tasks
  // do not throw.
  void parallel_for(int count, const std::function<void(int)>& task) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Sets the calling thread's floating-point mode; engine threads call it once.
void set_float_mode();

}  // namespace tessera
