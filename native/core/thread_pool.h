// A pool of threads for the inside of ops. The caller takes part; one caller at a time.
#pragma once

#include <memory>

namespace tessera {

class ThreadPool {
 public:
  // `threads` counts the caller, at least 1. Workers set the floating-point mode (no flush to zero,
  // round to nearest).
  explicit ThreadPool(int threads);
  ~ThreadPool();
  int threads() const;
  // Runs task(i) for i in [0, count) on all threads, in any order; returns when all are done. The
  // first exception of a task is thrown here, the rest of the job is skipped. Nothing is allocated.
  template <typename Task>
  void parallel_for(int count, const Task& task) const {
    run(count, {&task, [](const void* of, int i) { (*static_cast<const Task*>(of))(i); }});
  }

 private:
  struct State;
  struct TaskRef {
    const void* of;
    void (*call)(const void* of, int i);
  };
  void run(int count, TaskRef task) const;

  std::unique_ptr<State> state_;
};

// Sets the calling thread's floating-point mode; engine threads call it once.
void set_float_mode();

}  // namespace tessera
