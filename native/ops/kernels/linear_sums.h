// What linears of every type of weight have in common: sums of a panel by lane and row, the lanes'
// tree, bias and epilogue.
#pragma once

#include <algorithm>

#include "ops/kernels/kernels.h"
#include "ops/kernels/simd.h"

namespace tessera::TESSERA_NS {

inline constexpr int kPanelVecs = kPanelOutputs / 16;
inline constexpr int kChunkRows = kQuantisedRows;

struct LaneSums {
  alignas(64) float of[kMaxLanes][kChunkRows][kPanelOutputs];
};

// Not inlined: the address of a thread's own memory is looked up once a task.
[[gnu::noinline]] inline LaneSums& own_sums() {
  static thread_local LaneSums sums;
  return sums;
}

// Adds lane b to lane a for the tree (0+1)+(2+3) …; the result is in lane 0.
inline void fold_lanes(LaneSums& sums, int lanes, int rows) {
  const int count = rows * kPanelOutputs;
  for (int step = 1; step < lanes; step *= 2)
    for (int lane = 0; lane + step < lanes; lane += 2 * step) {
      float* a = sums.of[lane][0];
      const float* b = sums.of[lane + step][0];
      for (int i = 0; i < count; i += 16) store(a + i, load(a + i) + load(b + i));
    }
}

// Writes the panel's outputs of rows [first_row, first_row + rows).
inline void finish_panel(const LaneSums& sums, const LinearArgs& args, int panel, int first_row,
                         int rows) {
  const int outputs = args.lanes[0].outputs;
  const int first = panel * kPanelOutputs;
  for (int r = 0; r < rows; ++r) {
    float* y = args.y + (first_row + r) * args.y_stride + first;
    for (int v = 0; v < kPanelOutputs && first + v < outputs; v += 16) {
      const int count = std::min(16, outputs - first - v);
      V16 value = load(sums.of[0][r] + v);
      if (args.bias != nullptr) value = value + load_part(args.bias + first + v, count, 0.0f);
      if (args.epilogue == Epilogue::kGelu) value = gelu_of(value);
      if (count == 16) {
        store(y + v, value);
      } else {
        store_part(y + v, value, count);
      }
    }
  }
}

}  // namespace tessera::TESSERA_NS
