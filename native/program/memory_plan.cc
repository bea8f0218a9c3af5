#include <algorithm>
#include <numeric>

#include "program/program.h"

namespace tessera {

namespace {

struct Life {
  int first = -1, last = -1;  // op indices, collectives counted
  size_t elements = 0;
  void touch(int at) {
    if (first < 0) first = at;
    last = at;
  }
  bool meets(const Life& other) const { return first <= other.last && other.first <= last; }
};

std::vector<Life> lives(const Program& program) {
  std::vector<Life> out(program.buffers.size());
  int at = 0;
  for (const Segment& segment : program.segments) {
    for (const Op& op : segment.ops) {
      if (op.x >= 0) out[op.x].touch(at);
      if (op.out >= 0) out[op.out].touch(at);
      if (op.sums >= 0) out[op.sums].touch(at);
      ++at;
    }
    if (segment.all_reduce >= 0) out[segment.all_reduce].touch(at++);
  }
  return out;
}

}  // namespace

MemoryPlan plan_memory(const Program& program, const Items& most) {
  std::vector<Life> life = lives(program);
  for (size_t i = 0; i < life.size(); ++i) {
    const BufferSpec& buffer = program.buffers[i];
    const int items = most.of(buffer.per);
    // Whole lines of 64 bytes.
    life[i].elements = (static_cast<size_t>(items) * buffer.rows * buffer.width + 15) / 16 * 16;
  }
  std::vector<int> order(life.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return life[a].elements > life[b].elements; });
  MemoryPlan plan{std::vector<size_t>(life.size(), 0), 0};
  std::vector<int> placed;
  for (const int i : order) {
    size_t offset = 0;
    std::sort(placed.begin(), placed.end(),
              [&](int a, int b) { return plan.offsets[a] < plan.offsets[b]; });
    for (const int other : placed) {
      if (!life[i].meets(life[other])) continue;
      if (offset + life[i].elements <= plan.offsets[other]) break;
      offset = std::max(offset, plan.offsets[other] + life[other].elements);
    }
    plan.offsets[i] = offset;
    plan.elements = std::max(plan.elements, offset + life[i].elements);
    placed.push_back(i);
  }
  return plan;
}

size_t integer_bytes(const Program& program, const Items& most) {
  size_t bytes = 0;
  for (const Segment& segment : program.segments)
    for (const Op& op : segment.ops) {
      if (op.kind != OpKind::kLinear) continue;
      const WeightSpec& weight = program.weights[op.weight];
      std::vector<Panels> lanes;
      for (size_t i = 0; i + 1 < weight.lane_starts.size(); ++i)
        lanes.push_back({nullptr, weight.outputs, weight.lane_starts[i + 1] - weight.lane_starts[i],
                         weight.type, nullptr});
      const BufferSpec& x = program.buffers[op.x];
      bytes = std::max(bytes, quantised_bytes(most.of(x.per) * x.rows, lanes));
    }
  return bytes;
}

}  // namespace tessera
