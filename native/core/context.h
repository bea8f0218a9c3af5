// What an op runs on: a pool of threads and a kind of kernels.
#pragma once

#include "core/cpu_kind.h"
#include "core/thread_pool.h"

namespace tessera {

struct Context {
  ThreadPool* pool;
  CpuKind kind;
  // avx512: dot products of bytes by VNNI where the CPU has it; same bits without.
  bool vnni = true;
};

}  // namespace tessera
