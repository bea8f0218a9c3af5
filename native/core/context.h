// What an op runs on: a pool of threads and a kind of kernels.
#pragma once

#include "core/cpu_kind.h"
#include "core/thread_pool.h"

namespace tessera {

struct Context {
  ThreadPool* pool;
  CpuKind kind;
};

}  // namespace tessera
