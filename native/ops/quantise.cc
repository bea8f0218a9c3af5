// Weights as integers with a scale for each output and group of 32 inputs.
#include <algorithm>
#include <cstring>

#include "core/bf16.h"
#include "core/f16.h"
#include "ops/ops.h"

namespace tessera {

namespace {

constexpr int kInt8Limit = 127, kInt4Limit = 7, kInt4Shift = 8;
constexpr size_t kScaleBytes = kPanelOutputs * sizeof(uint16_t);

// A row's group as whole numbers in f32, and its scale.
struct Group {
  float q[kGroupInputs];
  uint16_t scale;
};

// To the nearest whole number, half to even, of |v| < 2²².
float nearest(float v) {
  constexpr float kShift = 0x1.8p23f;
  return (v + kShift) - kShift;
}

// `count` weights; those missing to a whole group are 0.
Group quantise(const uint16_t* w, int count, int limit) {
  float wide[kGroupInputs] = {};
  float most = 0.0f;
  for (int k = 0; k < count; ++k) {
    wide[k] = from_bf16(w[k]);
    most = std::max(most, wide[k] < 0 ? -wide[k] : wide[k]);
  }
  const auto top = static_cast<float>(limit);
  Group group{};
  group.scale = to_f16(most / top);
  const float scale = from_f16(group.scale);
  if (scale == 0.0f) return group;
  for (int k = 0; k < kGroupInputs; ++k)
    group.q[k] = nearest(std::min(top, std::max(-top, wide[k] / scale)));
  return group;
}

// Writes one output's part of a group at `to`.
void put_int8(uint8_t* to, int output, const Group& group) {
  for (int k = 0; k < kGroupInputs; ++k)
    to[(k / 4 * kPanelOutputs + output) * 4 + k % 4] =
        static_cast<uint8_t>(static_cast<int8_t>(group.q[k]));
}

void put_int4(uint8_t* to, int output, const Group& group) {
  for (int k = 0; k < kGroupInputs; k += 8)
    for (int b = 0; b < 4; ++b) {
      const int low = static_cast<int>(group.q[k + b]) + kInt4Shift;
      const int high = static_cast<int>(group.q[k + 4 + b]) + kInt4Shift;
      to[(k / 8 * kPanelOutputs + output) * 4 + b] = static_cast<uint8_t>(low | high << 4);
    }
}

size_t group_count(int inputs) {
  return (static_cast<size_t>(inputs) + kGroupInputs - 1) / kGroupInputs;
}

}  // namespace

const char* weight_type_name(WeightType type) {
  switch (type) {
    case WeightType::kInt8:
      return "int8";
    case WeightType::kInt4:
      return "int4";
    case WeightType::kBf16:
      break;
  }
  return "bf16";
}

size_t group_bytes(WeightType type) {
  const size_t values = kPanelOutputs * kGroupInputs;
  return (type == WeightType::kInt8 ? values : values / 2) + kScaleBytes;
}

bool pack_groups(uint8_t* panels, WeightType type, const uint16_t* rows, int first, int count,
                 int inputs) {
  const size_t bytes = group_bytes(type), groups = group_count(inputs);
  const bool wide = type == WeightType::kInt8;
  constexpr uint16_t kInfinity = 0x7c00;
  bool fits = true;
  for (int i = 0; i < count; ++i) {
    const int output = (first + i) % kPanelOutputs;
    uint8_t* panel = panels + (first + i) / kPanelOutputs * groups * bytes;
    for (size_t g = 0; g < groups; ++g) {
      const int k = static_cast<int>(g) * kGroupInputs;
      const Group group =
          quantise(rows + static_cast<size_t>(i) * inputs + k, std::min(kGroupInputs, inputs - k),
                   wide ? kInt8Limit : kInt4Limit);
      uint8_t* to = panel + g * bytes;
      (wide ? put_int8 : put_int4)(to, output, group);
      std::memcpy(to + bytes - kScaleBytes + output * sizeof(uint16_t), &group.scale,
                  sizeof(uint16_t));
      fits = fits && group.scale < kInfinity;
    }
  }
  return fits;
}

size_t quantised_bytes(int rows, std::span<const Panels> lanes) {
  size_t groups = 0;
  for (const Panels& lane : lanes)
    if (lane.type != WeightType::kBf16) groups += group_count(lane.inputs);
  // Integers, a scale, and the integers' sum.
  return std::min(rows, kQuantisedRows) * groups * (kGroupInputs + sizeof(float) + sizeof(int32_t));
}

}  // namespace tessera
