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

  // The file's pages stay in the kernel's cache; this process counts them no longer.
  void drop_pages(const WeightSpec& spec) {
    for (const auto* pieces : {&spec.pieces, &spec.zeros})
      for (const TensorPiece& piece : *pieces) {
        const TensorSource& source = tensors_.at(piece.tensor);
        files_.at(source.path)->drop(source);
      }
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
    Buffer<uint16_t> values(static_cast<size_t>(spec.outputs) * spec.inputs);
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
    weight.f32 = Buffer<float>(values.size());
    for (size_t i = 0; i < values.size(); ++i) weight.f32[i] = from_bf16(values[i]);
  }

  void load_linear(const WeightSpec& spec, Weight& weight) {
    const size_t bytes = weight_bytes(spec);
    const bool quantised = spec.type != WeightType::kBf16;
    if (quantised) {
      weight.groups = Buffer<uint8_t>(bytes);
    } else {
      weight.bf16 = Buffer<uint16_t>(bytes / sizeof(uint16_t));
    }
    weight.lane_starts.assign(spec.lane_starts.begin(), spec.lane_starts.end() - 1);
    size_t at = 0;
    for (size_t i = 0; i < weight.lane_starts.size(); ++i) {
      const int start = spec.lane_starts[i], inputs = spec.lane_starts[i + 1] - start;
      const Place place{quantised ? nullptr : weight.bf16.data() + at / sizeof(uint16_t),
                        quantised ? weight.groups.data() + at : nullptr, start, inputs};
      weight.lanes.push_back({place.panels, spec.outputs, inputs, spec.type, place.groups});
      pack_lane(spec, place);
      at += panel_bytes(spec.outputs, inputs, spec.type);
    }
  }

  // Where a lane's panels are written, and its columns.
  struct Place {
    uint16_t* panels;
    uint8_t* groups;
    int start, inputs;
  };

  void pack_lane(const WeightSpec& spec, const Place& place) {
    int output = 0;
    for (const TensorPiece& piece : spec.pieces) {
      CHECK_MODEL(piece.col_count == spec.inputs && output + piece.row_count <= spec.outputs,
                  "weight ", spec.name, ": piece of ", piece.tensor, " does not fit");
      pack_piece(reader(piece), piece, spec.type, place, output);
      output += static_cast<int>(piece.row_count);
    }
    CHECK_MODEL(output == spec.outputs, "weight ", spec.name, ": ", output, " rows of ",
                spec.outputs);
  }

  void pack_piece(const TensorReader& source, const TensorPiece& piece, WeightType type,
                  const Place& place, int output) {
    constexpr int kRows = 64;
    const int tasks = static_cast<int>((piece.row_count + kRows - 1) / kRows),
              inputs = place.inputs;
    std::atomic<bool> finite{true}, fits{true};
    context_.pool->parallel_for(tasks, [&](int task) {
      std::vector<uint16_t> rows(static_cast<size_t>(kRows) * inputs);
      const int64_t first = static_cast<int64_t>(task) * kRows;
      const auto count = static_cast<int>(std::min<int64_t>(kRows, piece.row_count - first));
      for (int r = 0; r < count; ++r)
        if (!source.read(rows.data() + static_cast<size_t>(r) * inputs, piece.row_start + first + r,
                         piece.col_start + place.start, inputs))
          finite = false;
      const int at = output + static_cast<int>(first);
      if (type == WeightType::kBf16) {
        pack_panels(place.panels, rows.data(), at, count, inputs);
      } else if (!pack_groups(place.groups, type, rows.data(), at, count, inputs)) {
        fits = false;
      }
    });
    CHECK_MODEL(finite.load(), "tensor ", piece.tensor, ": has a value that is not finite");
    CHECK_MODEL(fits.load(), "tensor ", piece.tensor, ": has a value too large for ",
                weight_type_name(type));
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
    loader.drop_pages(spec);
    loaded(weight_bytes(spec));
  }
  return weights;
}

uint64_t weight_bytes(const WeightSpec& spec) {
  if (spec.kind == WeightKind::kLinear) {
    uint64_t bytes = 0;
    for (size_t i = 0; i + 1 < spec.lane_starts.size(); ++i)
      bytes += panel_bytes(spec.outputs, spec.lane_starts[i + 1] - spec.lane_starts[i], spec.type);
    return bytes;
  }
  const uint64_t values = static_cast<uint64_t>(spec.outputs) * spec.inputs;
  return values * (spec.kind == WeightKind::kVector ? sizeof(float) : sizeof(uint16_t));
}

uint64_t weight_bytes(const Program& program) {
  uint64_t bytes = 0;
  for (const WeightSpec& spec : program.weights) bytes += weight_bytes(spec);
  return bytes;
}

}  // namespace tessera
