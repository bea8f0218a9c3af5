// The ceilings of this machine, measured: what a profile's ops are held against.
#pragma once

#include <cstddef>

namespace tessera::bench {

struct MeasuredCeilings {
  double read_bytes_per_second, flops_per_second;
};

// Medians of the best variants on `threads` threads, over `read_bytes` of memory, which is taken
// for it and given back. Takes about a second.
MeasuredCeilings measure_ceilings(int threads, size_t read_bytes);

}  // namespace tessera::bench
