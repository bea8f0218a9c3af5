// Weights as they are loaded: quantised ones against rows packed by hand.
#include "program/weights.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "test/testing.h"

namespace tessera::testing {
namespace {

// A file of bf16 rows that is removed with it.
class Stored {
 public:
  Stored(const std::vector<uint16_t>& values, int64_t rows, int64_t cols) {
    close(mkstemp(path_));
    const size_t bytes = values.size() * sizeof(uint16_t);
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(bytes));
    sources_["w"] = {path_, "BF16", 0, bytes, rows, cols};
  }
  ~Stored() { unlink(path_); }
  const std::map<std::string, TensorSource>& sources() const { return sources_; }

 private:
  char path_[32] = "/tmp/tessera-weights-XXXXXX";
  std::map<std::string, TensorSource> sources_;
};

Program program_of(WeightType type, int outputs, int inputs, std::vector<int> lane_starts,
                   std::vector<TensorPiece> pieces) {
  Program program;
  program.weights = {{WeightKind::kLinear,
                      "linear",
                      outputs,
                      inputs,
                      std::move(pieces),
                      {},
                      std::move(lane_starts),
                      type}};
  return program;
}

TEST(
    "quantised weights: pieces one under another, each lane's groups counted from its first "
    "column") {
  constexpr int kRows = 150, kCols = 90, kOutputs = 130, kInputs = 80;
  const auto stored = to_bf16_list(random_values(kRows * kCols, 3));
  const Stored file(stored, kRows, kCols);
  // Rows 20 … 119, then 0 … 29; columns 10 … 89, in lanes of 45 and 35.
  const std::vector<TensorPiece> pieces = {{"w", 20, 100, 10, kInputs}, {"w", 0, 30, 10, kInputs}};
  for (const WeightType type : {WeightType::kInt8, WeightType::kInt4}) {
    const Program program = program_of(type, kOutputs, kInputs, {0, 45, 80}, pieces);
    uint64_t told = 0;
    const auto weights = load_weights(contexts()[1], program, file.sources(),
                                      [&](uint64_t bytes) { told += bytes; });
    const Weight& weight = weights.at(0);
    EXPECT(told == weight.groups.bytes() && told == weight_bytes(program), told);
    EXPECT(weight.lanes.size() == 2 && weight.bf16.size() == 0);
    const std::vector<int> starts = {0, 45, 80};
    for (int lane = 0; lane < 2; ++lane) {
      const int inputs = starts[lane + 1] - starts[lane];
      std::vector<uint16_t> rows;
      for (int o = 0; o < kOutputs; ++o) {
        const int row = o < 100 ? 20 + o : o - 100;
        const auto from = stored.begin() + row * kCols + 10 + starts[lane];
        rows.insert(rows.end(), from, from + inputs);
      }
      Buffer<uint8_t> wanted(panel_bytes(kOutputs, inputs, type));
      EXPECT(pack_groups(wanted.data(), type, rows.data(), 0, kOutputs, inputs));
      const Panels& got = weight.lanes[lane];
      EXPECT(got.type == type && got.inputs == inputs && got.outputs == kOutputs);
      EXPECT(std::memcmp(got.groups, wanted.data(), wanted.bytes()) == 0, weight_type_name(type),
             " lane ", lane);
    }
  }
}

TEST("quantised weights: a value whose scale f16 cannot hold refuses the tensor by name") {
  std::vector<float> values(64, 1.0f);
  values[40] = 1e10f;
  const Stored file(to_bf16_list(values), 2, 32);
  const auto load = [&](WeightType type) {
    const Program program = program_of(type, 2, 32, {0, 32}, {{"w", 0, 2, 0, 32}});
    load_weights(contexts()[0], program, file.sources(), [](uint64_t) {});
  };
  load(WeightType::kBf16);
  EXPECT_ERROR("BAD_MODEL", "tensor w: has a value too large for int4", load(WeightType::kInt4));
  EXPECT_ERROR("BAD_MODEL", "tensor w: has a value too large for int8", load(WeightType::kInt8));
}

}  // namespace
}  // namespace tessera::testing
