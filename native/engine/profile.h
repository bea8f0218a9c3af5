// What a profile says of one op of a pass.
#pragma once

#include <cstdint>

namespace tessera {

// Bytes and flops of one op at least: weights and cache read once, rows read and written;
// multiplications and additions of products.
struct OpCost {
  uint64_t bytes = 0, flops = 0;
};

// Of the streams' program or of the pass's own; `op` is the number of the segment's ops for the
// collective at its end.
struct OpTime {
  bool stream;
  int segment, op;
  int rows;           // of what it reads; 0 when that is no buffer
  uint64_t start_ns;  // since the pass began
  uint64_t ns;
  uint64_t wait_ns;  // of ns: for peers
  OpCost cost;
};

}  // namespace tessera
