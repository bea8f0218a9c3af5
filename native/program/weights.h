// A rank's cut of the weights, converted once to the engine's layout.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "ops/ops.h"
#include "program/program.h"

namespace tessera {

// One weight in memory: panels by lane (linear; quantised ones in `groups`), f32 (vector), or bf16
// rows (table).
struct Weight {
  Buffer<uint16_t> bf16;
  Buffer<uint8_t> groups;
  Buffer<float> f32;
  std::vector<Panels> lanes;
  std::vector<int> lane_starts;
  int rows = 0;
};

// Reads and checks the weights of a program; `loaded` is told the bytes of each. Files are mapped
// while this runs. Throws BAD_MODEL: missing, short, not finite, too large to be quantised, or not
// zero where a dummy head must be.
std::vector<Weight> load_weights(const Context& context, const Program& program,
                                 const std::map<std::string, TensorSource>& tensors,
                                 const std::function<void(uint64_t)>& loaded);
// In memory: panels hold a multiple of 64 outputs.
uint64_t weight_bytes(const WeightSpec& spec);
uint64_t weight_bytes(const Program& program);

}  // namespace tessera
