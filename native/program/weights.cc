#include "program/weights.h"

#include <algorithm>
#include <atomic>

#include "core/bf16.h"
#include "core/check.h"
#include "program/tensor_reader.h"

namespace tessera {

namespace {

// Loads the weights of one program.
class Loader {
 public:
  Loader(const Context& context, const std::map<std::string, TensorSource>& tensors)
      : context_(context), tensors_(tensors) {}

  Weight load(const WeightSpec& spec) {
    for (const TensorPiece& piece : spec.zeros) check_zeros(piece);
    Weight weight;
    weight.rows = spec.outputs;
    if (spec.kind == WeightKind::kLinear) {
      load_linear(spec, weight);
    } else {
      load_rows(spec, weight);
    }
    return weight;
  }

 private:
  TensorReader reader(const TensorPiece& piece) {
    const auto found = tensors_.find(piece.tensor);
    CHECK_MODEL(found != tensors_.end(), "tensor ", piece.tensor, ": missing");
    auto& file = files_[found->second.path];
    if (file == nullptr) file = std::make_unique<MappedFile>(found->second.path);
    TensorReader reader(piece.tensor, found->second, file->at(found->second, piece.tensor));
    reader.check_piece(piece);
    return reader;
  }

  void check_zeros(const TensorPiece& piece) {
    const TensorReader source = reader(piece);
    std::vector<uint16_t> row(piece.col_count);
    for (int64_t r = 0; r < piece.row_count; ++r) {
      source.read(row.data(), piece.row_start + r, piece.col_start, piece.col_count);
      for (const uint16_t value : row)
        CHECK_MODEL((value & 0x7fffu) == 0, "tensor ", piece.tensor, ": row ", piece.row_start + r,
                    " of a dummy head is not zero");
    }
  }

  void load_rows(const WeightSpec& spec, Weight& weight) {
    std::vector<uint16_t> values(static_cast<size_t>(spec.outputs) * spec.inputs);
    size_t at = 0;
    for (const TensorPiece& piece : spec.pieces) {
      const TensorReader source = reader(piece);
      CHECK_MODEL(at + piece.row_count * piece.col_count <= values.size(), "weight ", spec.name,
                  ": pieces are larger than it");
      for (int64_t r = 0; r < piece.row_count; ++r, at += piece.col_count)
        CHECK_MODEL(
            source.read(values.data() + at, piece.row_start + r, piece.col_start, piece.col_count),
            "tensor ", piece.tensor, ": row ", piece.row_start + r,
            " has a value that is not finite");
    }
    CHECK_MODEL(at == values.size(), "weight ", spec.name, ": ", at, " values of ", values.size());
    if (spec.kind == WeightKind::kTable) {
      weight.bf16 = std::move(values);
      return;
    }
    weight.f32.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) weight.f32[i] = from_bf16(values[i]);
  }

  void load_linear(const WeightSpec& spec, Weight& weight) {
    size_t bytes = 0;
    const int lanes = static_cast<int>(spec.lane_starts.size()) - 1;
    for (int i = 0; i < lanes; ++i)
      bytes += panel_bytes(spec.outputs, spec.lane_starts[i + 1] - spec.lane_starts[i]);
    weight.bf16.assign(bytes / sizeof(uint16_t), 0);
    weight.lane_starts.assign(spec.lane_starts.begin(), spec.lane_starts.end() - 1);
    uint16_t* panels = weight.bf16.data();
    for (int i = 0; i < lanes; ++i) {
      const int start = spec.lane_starts[i], inputs = spec.lane_starts[i + 1] - start;
      weight.lanes.push_back({panels, spec.outputs, inputs});
      pack_lane(spec, panels, start, inputs);
      panels += panel_bytes(spec.outputs, inputs) / sizeof(uint16_t);
    }
  }

  void pack_lane(const WeightSpec& spec, uint16_t* panels, int start, int inputs) {
    int output = 0;
    for (const TensorPiece& piece : spec.pieces) {
      CHECK_MODEL(piece.col_count == spec.inputs && output + piece.row_count <= spec.outputs,
                  "weight ", spec.name, ": piece of ", piece.tensor, " does not fit");
      pack_piece(reader(piece), piece, panels, output, start, inputs);
      output += static_cast<int>(piece.row_count);
    }
    CHECK_MODEL(output == spec.outputs, "weight ", spec.name, ": ", output, " rows of ",
                spec.outputs);
  }

  void pack_piece(const TensorReader& source, const TensorPiece& piece, uint16_t* panels,
                  int output, int start, int inputs) {
    constexpr int kRows = 64;
    const int tasks = static_cast<int>((piece.row_count + kRows - 1) / kRows);
    std::atomic<bool> finite{true};
    context_.pool->parallel_for(tasks, [&](int task) {
      std::vector<uint16_t> rows(static_cast<size_t>(kRows) * inputs);
      const int64_t first = static_cast<int64_t>(task) * kRows;
      const int64_t count = std::min<int64_t>(kRows, piece.row_count - first);
      for (int64_t r = 0; r < count; ++r)
        if (!source.read(rows.data() + r * inputs, piece.row_start + first + r,
                         piece.col_start + start, inputs))
          finite = false;
      pack_panels(panels, rows.data(), output + static_cast<int>(first), static_cast<int>(count),
                  inputs);
    });
    CHECK_MODEL(finite.load(), "tensor ", piece.tensor, ": has a value that is not finite");
  }

  const Context& context_;
  const std::map<std::string, TensorSource>& tensors_;
  std::map<std::string, std::unique_ptr<MappedFile>> files_;
};

}  // namespace

std::vector<Weight> load_weights(const Context& context, const Program& program,
                                 const std::map<std::string, TensorSource>& tensors,
                                 const std::function<void(uint64_t)>& loaded) {
  Loader loader(context, tensors);
  std::vector<Weight> weights;
  for (const WeightSpec& spec : program.weights) {
    weights.push_back(loader.load(spec));
    loaded(weight_bytes(spec));
  }
  return weights;
}

uint64_t weight_bytes(const WeightSpec& spec) {
  if (spec.kind == WeightKind::kLinear) return panel_bytes(spec.outputs, spec.inputs);
  const uint64_t values = static_cast<uint64_t>(spec.outputs) * spec.inputs;
  return values * (spec.kind == WeightKind::kVector ? sizeof(float) : sizeof(uint16_t));
}

uint64_t weight_bytes(const Program& program) {
  uint64_t bytes = 0;
  for (const WeightSpec& spec : program.weights) bytes += weight_bytes(spec);
  return bytes;
}

}  // namespace tessera
