// Contracts and orders of sums: ops/ops.h.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/bf16.h"
#include "core/f16.h"
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

// Where a panel's group `group` begins.
const uint8_t* group_at(const Panels& lane, int output, int group) {
  const size_t groups = (lane.inputs + kGroupInputs - 1) / kGroupInputs;
  return lane.groups + (output / kPanelOutputs * groups + group) * group_bytes(lane.type);
}

// The integer of w[output][k], k counted in the group.
int integer_at(const Panels& lane, const uint8_t* group, int output, int k) {
  const int column = output % kPanelOutputs;
  if (lane.type == WeightType::kInt8)
    return static_cast<int8_t>(group[(k / 4 * kPanelOutputs + column) * 4 + k % 4]);
  const uint8_t pair = group[(k / 8 * kPanelOutputs + column) * 4 + k % 4];
  return (k % 8 < 4 ? pair & 15 : pair >> 4) - 8;
}

float scale_at(const Panels& lane, const uint8_t* group, int output) {
  uint16_t half;
  const size_t scales = group_bytes(lane.type) - kPanelOutputs * sizeof(half);
  std::memcpy(&half, group + scales + output % kPanelOutputs * sizeof(half), sizeof(half));
  return from_f16(half);
}

struct Activations {
  int q[kGroupInputs] = {};
  float scale = 0;
};

Activations quantise(const float* x, int count) {
  Activations out;
  float most = 0;
  for (int k = 0; k < count; ++k) {
    if (!std::isfinite(x[k])) {
      out.scale = std::numeric_limits<float>::quiet_NaN();
      return out;
    }
    most = std::max(most, std::fabs(x[k]));
  }
  out.scale = most / 127.0f;
  if (out.scale == 0) return out;
  for (int k = 0; k < count; ++k)
    out.q[k] = static_cast<int>(std::nearbyint(std::clamp(x[k] / out.scale, -127.0f, 127.0f)));
  return out;
}

std::vector<Activations> quantise_lane(const float* x, int inputs) {
  std::vector<Activations> out;
  for (int k = 0; k < inputs; k += kGroupInputs)
    out.push_back(quantise(x + k, std::min(kGroupInputs, inputs - k)));
  return out;
}

float group_sums(const Panels& lane, const std::vector<Activations>& x, int output) {
  float sum = 0;
  for (size_t g = 0; g < x.size(); ++g) {
    const uint8_t* group = group_at(lane, output, static_cast<int>(g));
    int dot = 0;
    for (int k = 0; k < kGroupInputs; ++k) dot += x[g].q[k] * integer_at(lane, group, output, k);
    sum = std::fma(static_cast<float>(dot), x[g].scale * scale_at(lane, group, output), sum);
  }
  return sum;
}

float lane_sum(const Panels& lane, const float* x, int output) {
  float sum = 0;
  for (int k = 0; k < lane.inputs; ++k) sum = std::fma(x[k], weight_at(lane, output, k), sum);
  return sum;
}

}  // namespace

void linear(const Context&, const LinearArgs& args) {
  const int lanes = static_cast<int>(args.lanes.size());
  for (int r = 0; r < args.rows; ++r) {
    const float* row = args.x + r * args.x_stride;
    std::vector<std::vector<Activations>> integers(lanes);
    for (int i = 0; i < lanes; ++i)
      if (args.lanes[i].type != WeightType::kBf16)
        integers[i] = quantise_lane(row + args.lane_starts[i], args.lanes[i].inputs);
    for (int o = 0; o < args.lanes[0].outputs; ++o) {
      std::vector<float> sums(lanes, 0.0f);
      for (int i = 0; i < lanes; ++i)
        sums[i] = args.lanes[i].type == WeightType::kBf16
                      ? lane_sum(args.lanes[i], row + args.lane_starts[i], o)
                      : group_sums(args.lanes[i], integers[i], o);
      float value = tree(sums, 0, lanes);
      if (args.bias != nullptr) value = value + args.bias[o];
      if (args.epilogue == Epilogue::kGelu) value = gelu(value);
      args.y[r * args.y_stride + o] = value;
    }
  }
}

}  // namespace tessera::reference
