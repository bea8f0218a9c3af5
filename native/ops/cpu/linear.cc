// Contracts and orders of sums: ops/ops.h.
#include <cmath>
#include <vector>

#include "core/bf16.h"
#include "ops/cpu/reference.h"

namespace tessera::reference {

namespace {

// w[output][k] of a lane in panels.
float weight_at(const Panels& lane, int output, int k) {
  const size_t panel = static_cast<size_t>(output / kPanelOutputs) * lane.inputs + k;
  return from_bf16(lane.data[panel * kPanelOutputs + output % kPanelOutputs]);
}

// (0+1)+(2+3) … of lanes [first, first + count); count is a power of two.
float tree(const std::vector<float>& sums, int first, int count) {
  if (count == 1) return sums[first];
  return tree(sums, first, count / 2) + tree(sums, first + count / 2, count / 2);
}

}  // namespace

void linear(const Context&, const LinearArgs& args) {
  const int lanes = static_cast<int>(args.lanes.size());
  for (int r = 0; r < args.rows; ++r)
    for (int o = 0; o < args.lanes[0].outputs; ++o) {
      std::vector<float> sums(lanes, 0.0f);
      for (int i = 0; i < lanes; ++i) {
        const float* x = args.x + r * args.x_stride + args.lane_starts[i];
        for (int k = 0; k < args.lanes[i].inputs; ++k)
          sums[i] = std::fma(x[k], weight_at(args.lanes[i], o, k), sums[i]);
      }
      float value = tree(sums, 0, lanes);
      if (args.bias != nullptr) value = value + args.bias[o];
      if (args.epilogue == Epilogue::kGelu) value = gelu(value);
      args.y[r * args.y_stride + o] = value;
    }
}

}  // namespace tessera::reference
