#include "ops/cpu/reference.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

struct Case {
  int rows, outputs, inputs, lanes;
  bool bias, gelu;
};

// Inputs and panels of a case; lanes of different lengths.
struct Data {
  std::vector<float> x, bias;
  std::vector<std::vector<uint16_t>> panels;
  std::vector<Panels> lanes;
  std::vector<int> starts;
  int inputs = 0;

  explicit Data(const Case& of) {
    for (int lane = 0; lane < of.lanes; ++lane) {
      const int inputs_here = of.inputs + 3 * lane;
      starts.push_back(inputs);
      inputs += inputs_here;
      const auto rows =
          to_bf16_list(random_values(static_cast<size_t>(of.outputs) * inputs_here, 7 + lane));
      panels.emplace_back(panel_bytes(of.outputs, inputs_here) / 2, 0);
      for (int first = 0; first < of.outputs; first += 64)
        pack_panels(panels.back().data(), rows.data() + static_cast<size_t>(first) * inputs_here,
                    first, std::min(64, of.outputs - first), inputs_here);
      lanes.push_back({panels.back().data(), of.outputs, inputs_here});
    }
    x = random_values(static_cast<size_t>(of.rows) * inputs, of.rows + inputs);
    bias = random_values(of.outputs, of.outputs);
  }
};

template <typename Linear>
std::vector<float> run(const Case& of, const Data& data, const Context& context, int first,
                       int count, Linear linear) {
  std::vector<float> y(static_cast<size_t>(count) * of.outputs);
  linear(context, {y.data(), data.x.data() + static_cast<size_t>(first) * data.inputs,
                   static_cast<size_t>(of.outputs), static_cast<size_t>(data.inputs), count,
                   data.lanes, data.starts, of.bias ? data.bias.data() : nullptr,
                   of.gelu ? Epilogue::kGelu : Epilogue::kNone});
  return y;
}

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const int rows : {1, 2, 5, 7, 8, 13, 97, 100})
    for (const int outputs : {1, 63, 64, 65, 130})
      for (const int inputs : {1, 17, 193})
        out.push_back({rows, outputs, inputs, 1 << (rows + outputs + inputs) % 4,
                       (rows + inputs) % 2 == 0, outputs % 2 == 0});
  out.push_back({3, 64, 2048, 8, true, false});
  out.push_back({200, 65, 400, 2, false, true});
  return out;
}

TEST("linear: every kind of kernels and any number of threads give the reference's bits") {
  for (const Case& one : cases()) {
    const Data data(one);
    const auto wanted = run(one, data, contexts()[0], 0, one.rows, reference::linear);
    for (const Context& context : contexts())
      EXPECT(same_bits(run(one, data, context, 0, one.rows, linear), wanted), name_of(context),
             ": ", one.rows, " × ", one.inputs, " → ", one.outputs, ", ", one.lanes, " lanes");
  }
}

TEST("linear: a row alone has the bits it has among others") {
  for (const Case& one : cases()) {
    const Data data(one);
    for (const Context& context : contexts()) {
      const auto whole = run(one, data, context, 0, one.rows, linear);
      for (const int row : {0, one.rows / 2, one.rows - 1}) {
        const auto begin = whole.begin() + static_cast<ptrdiff_t>(row) * one.outputs;
        EXPECT(same_bits(run(one, data, context, row, 1, linear), {begin, begin + one.outputs}),
               name_of(context), ": row ", row, " of ", one.rows);
      }
    }
  }
}

TEST("linear: a rank's lanes in the tree are a subtree of the whole") {
  const Case one{9, 70, 40, 8, false, false};
  const Data data(one);
  const Context& context = contexts().back();
  const auto whole = run(one, data, context, 0, one.rows, linear);
  for (const int ranks : {2, 4, 8}) {
    const int each = 8 / ranks;
    std::vector<std::vector<float>> parts;
    for (int rank = 0; rank < ranks; ++rank) {
      std::vector<float> y(whole.size());
      linear(context,
             {y.data(), data.x.data(), 70, static_cast<size_t>(data.inputs), one.rows,
              std::span(data.lanes).subspan(rank * each, each),
              std::span(data.starts).subspan(rank * each, each), nullptr, Epilogue::kNone});
      parts.push_back(y);
    }
    for (int step = 1; step < ranks; step *= 2)
      for (int i = 0; i + step < ranks; i += 2 * step)
        add(context, parts[i].data(), parts[i + step].data(), whole.size());
    EXPECT(same_bits(parts[0], whole), ranks, " ranks");
  }
}

}  // namespace
}  // namespace tessera::testing
