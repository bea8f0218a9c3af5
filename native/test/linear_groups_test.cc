// Linears of int8 and int4 weights: packing, and every kind of kernels against the reference.
#include <limits>

#include "core/buffer.h"
#include "core/f16.h"
#include "ops/cpu/reference.h"
#include "test/testing.h"

namespace tessera::testing {
namespace {

constexpr WeightType kTypes[] = {WeightType::kInt8, WeightType::kInt4};

const char* type_name(WeightType type) { return type == WeightType::kInt8 ? "int8" : "int4"; }

struct Case {
  int rows, outputs, inputs, lanes;
  bool bias, gelu;
};

// Kinds of kernels, and AVX-512 without VNNI.
std::vector<Context> all_contexts() {
  std::vector<Context> out = contexts();
  for (Context context : contexts()) {
    if (context.kind != CpuKind::kAvx512) continue;
    context.vnni = false;
    out.push_back(context);
  }
  return out;
}

// NaN for NaN, else to the bit.
bool same_or_nan(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!(std::isnan(a[i]) && std::isnan(b[i])) && std::memcmp(&a[i], &b[i], sizeof(float)) != 0)
      return false;
  return true;
}

// Inputs and panels of a case; lanes of different lengths. `weights` and `x` may be changed, then
// pack() is called.
struct Data {
  WeightType type;
  std::vector<float> x, bias;
  std::vector<std::vector<float>> weights;
  std::vector<Buffer<uint8_t>> panels;
  std::vector<Panels> lanes;
  std::vector<int> starts;
  int inputs = 0, outputs;

  Data(const Case& of, WeightType type) : type(type), outputs(of.outputs) {
    for (int lane = 0; lane < of.lanes; ++lane) {
      const int here = of.inputs + 3 * lane;
      starts.push_back(inputs);
      inputs += here;
      weights.push_back(random_values(static_cast<size_t>(of.outputs) * here, 7 + lane));
    }
    x = random_values(static_cast<size_t>(of.rows) * inputs, of.rows + inputs);
    bias = random_values(of.outputs, of.outputs);
    pack(of);
  }
  void pack(const Case& of) {
    panels.clear();
    lanes.clear();
    for (int lane = 0; lane < of.lanes; ++lane) {
      const int here = of.inputs + 3 * lane;
      const auto rows = to_bf16_list(weights[lane]);
      panels.emplace_back(panel_bytes(outputs, here, type));
      for (int first = 0; first < outputs; first += 64)
        EXPECT(pack_groups(panels.back().data(), type,
                           rows.data() + static_cast<size_t>(first) * here, first,
                           std::min(64, outputs - first), here));
      lanes.push_back({nullptr, outputs, here, type, panels.back().data()});
    }
  }
};

template <typename Linear>
std::vector<float> run(const Case& of, const Data& data, const Context& context, int first,
                       int count, Linear linear) {
  std::vector<float> y(static_cast<size_t>(count) * of.outputs);
  Buffer<uint8_t> scratch(quantised_bytes(count, data.lanes));
  linear(context, {y.data(), data.x.data() + static_cast<size_t>(first) * data.inputs,
                   static_cast<size_t>(of.outputs), static_cast<size_t>(data.inputs), count,
                   data.lanes, data.starts, of.bias ? data.bias.data() : nullptr,
                   of.gelu ? Epilogue::kGelu : Epilogue::kNone, scratch.data()});
  return y;
}

std::string text_of(const Case& of, const Data& data, const Context& context) {
  return joined(name_of(context), context.vnni ? "" : " without VNNI", ", ", type_name(data.type),
                ": ", of.rows, " × ", of.inputs, " → ", of.outputs, ", ", of.lanes, " lanes");
}

void expect_reference(const Case& one, const Data& data) {
  const auto wanted = run(one, data, contexts()[0], 0, one.rows, reference::linear);
  for (const Context& context : all_contexts())
    EXPECT(same_or_nan(run(one, data, context, 0, one.rows, linear), wanted),
           text_of(one, data, context));
}

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const int rows : {1, 2, 3, 4, 5, 6, 7, 13, 70})
    for (const int outputs : {1, 63, 65, 130})
      for (const int inputs : {1, 31, 32, 33, 300})
        out.push_back({rows, outputs, inputs, 1 << (rows + outputs + inputs) % 4,
                       (rows + inputs) % 2 == 0, outputs % 2 == 0});
  out.push_back({3, 64, 2048, 8, true, false});
  out.push_back({97, 65, 400, 2, false, true});
  out.push_back({200, 20, 64, 1, true, false});
  return out;
}

TEST(
    "linear of groups: every kind of kernels and any number of threads give the reference's bits") {
  for (const WeightType type : kTypes)
    for (const Case& one : cases()) expect_reference(one, Data(one, type));
}

TEST("linear of groups: a row alone has the bits it has among others") {
  for (const WeightType type : kTypes)
    for (const Case& one : {Case{13, 65, 70, 2, true, false}, Case{100, 130, 33, 4, false, true}}) {
      const Data data(one, type);
      for (const Context& context : all_contexts()) {
        const auto whole = run(one, data, context, 0, one.rows, linear);
        for (const int row : {0, one.rows / 2, one.rows - 1}) {
          const auto begin = whole.begin() + static_cast<ptrdiff_t>(row) * one.outputs;
          EXPECT(same_or_nan(run(one, data, context, row, 1, linear), {begin, begin + one.outputs}),
                 text_of(one, data, context), ", row ", row);
        }
      }
    }
}

TEST("linear of groups: a rank's lanes in the tree are a subtree of the whole") {
  const Case one{9, 70, 40, 8, false, false};
  for (const WeightType type : kTypes) {
    const Data data(one, type);
    const Context& context = contexts().back();
    const auto whole = run(one, data, context, 0, one.rows, linear);
    Buffer<uint8_t> scratch(quantised_bytes(one.rows, data.lanes));
    std::vector<std::vector<float>> parts;
    for (int rank = 0; rank < 4; ++rank) {
      parts.emplace_back(whole.size());
      linear(context, {parts.back().data(), data.x.data(), 70, static_cast<size_t>(data.inputs),
                       one.rows, std::span(data.lanes).subspan(rank * 2, 2),
                       std::span(data.starts).subspan(rank * 2, 2), nullptr, Epilogue::kNone,
                       scratch.data()});
    }
    add(context, parts[0].data(), parts[1].data(), whole.size());
    add(context, parts[2].data(), parts[3].data(), whole.size());
    add(context, parts[0].data(), parts[2].data(), whole.size());
    EXPECT(same_or_nan(parts[0], whole), type_name(type));
  }
}

// Every integer at its limit: sums of the same sign are as large as they can be.
TEST("linear of groups: integers of ±127 (int4: ±7) alone overflow nothing") {
  for (const WeightType type : kTypes)
    for (const bool alternate : {false, true}) {
      const Case one{7, 66, 160, 1, false, false};
      Data data(one, type);
      for (size_t i = 0; i < data.weights[0].size(); ++i)
        data.weights[0][i] = alternate && i % 2 == 1 ? -1.0f : 1.0f;
      for (size_t i = 0; i < data.x.size(); ++i)
        data.x[i] = i / 160 % 3 == 0 ? -1.0f : alternate && i % 2 == 1 ? -1.0f : 1.0f;
      data.pack(one);
      expect_reference(one, data);
      const auto y = run(one, data, contexts().back(), 1, 1, linear);
      EXPECT(std::fabs(y[0] - 160.0f) < 0.2f, y[0]);
    }
}

// Checkpoints may hold −128, which packing never writes.
TEST("linear of groups: stored weights of −128 overflow nothing") {
  const Case one{7, 64, 96, 1, false, false};
  Data data(one, WeightType::kInt8);
  for (size_t g = 0; g < 3; ++g)
    std::memset(data.panels[0].data() + g * group_bytes(WeightType::kInt8), 0x80, 64 * 32);
  for (size_t i = 0; i < data.x.size(); ++i) data.x[i] = i / 96 % 2 == 0 ? 1.0f : -1.0f;
  expect_reference(one, data);
}

TEST("linear of groups: zero groups, small and large values, and what is not finite") {
  const float kNan = std::numeric_limits<float>::quiet_NaN();
  const float kInf = std::numeric_limits<float>::infinity();
  for (const WeightType type : kTypes) {
    const Case one{8, 65, 100, 2, true, false};
    Data data(one, type);
    for (size_t i = 0; i < 100; ++i) data.weights[0][i] = i < 32 ? 0.0f : i < 64 ? 1e-9f : 1e5f;
    const auto row = [&](int r) { return data.x.data() + static_cast<size_t>(r) * data.inputs; };
    std::fill_n(row(1), data.inputs, 0.0f);
    std::fill_n(row(2), 40, -0.0f);
    for (int i = 0; i < 64; ++i) row(3)[i] = static_cast<float>(i - 30) * 0x1p-149f * 190;
    for (int i = 0; i < 64; ++i) row(4)[i] *= 1e37f;
    row(5)[40] = kNan;
    row(6)[99] = kInf;
    row(7)[data.inputs - 1] = -kInf;
    data.pack(one);
    expect_reference(one, data);
    for (const Context& context : all_contexts()) {
      const auto y = run(one, data, context, 0, one.rows, linear);
      for (const int r : {5, 6, 7})
        EXPECT(std::isnan(y[static_cast<size_t>(r) * 65 + 3]), text_of(one, data, context), " ", r);
      EXPECT(!std::isnan(y[65]) && y[65] == data.bias[0]);
    }
  }
}

TEST("pack_groups: scales are rounded to f16, integers to the nearest, ties to even") {
  std::vector<float> row(40, 0.0f);
  row[0] = 127.0f;
  row[1] = 2.5f;
  row[2] = -3.5f;
  row[3] = -127.0f;
  row[32] = 7.0f;
  const auto stored = to_bf16_list(row);
  Buffer<uint8_t> panels(panel_bytes(1, 40, WeightType::kInt8));
  EXPECT(pack_groups(panels.data(), WeightType::kInt8, stored.data(), 0, 1, 40));
  const auto* q = reinterpret_cast<const int8_t*>(panels.data());
  EXPECT(q[0] == 127 && q[1] == 2 && q[2] == -4 && q[3] == -127, int(q[0]), " ", int(q[1]), " ",
         int(q[2]), " ", int(q[3]));
  uint16_t scale;
  std::memcpy(&scale, panels.data() + 2048, sizeof(scale));
  EXPECT(scale == to_f16(1.0f), scale);
  std::memcpy(&scale, panels.data() + 2176 + 2048, sizeof(scale));
  EXPECT(scale == to_f16(7.0f / 127.0f) && q[2176] == 127, scale, " ", int(q[2176]));

  Buffer<uint8_t> narrow(panel_bytes(1, 40, WeightType::kInt4));
  EXPECT(pack_groups(narrow.data(), WeightType::kInt4, stored.data(), 0, 1, 40));
  std::memcpy(&scale, narrow.data() + 1024, sizeof(scale));
  EXPECT(scale == to_f16(127.0f / 7.0f));
  // 127 and −127 are ±7, above 8; 2.5 and −3.5 are nothing beside them.
  EXPECT((narrow[0] & 15) == 15 && (narrow[3] & 15) == 1 && (narrow[1] & 15) == 8);
}

TEST("pack_groups: a scale beyond f16 is told; one below it makes a group of zeros") {
  for (const WeightType type : kTypes) {
    Buffer<uint8_t> panels(panel_bytes(1, 32, type));
    const auto large = to_bf16_list(std::vector<float>(32, 1e30f));
    EXPECT(!pack_groups(panels.data(), type, large.data(), 0, 1, 32));
    const auto small = to_bf16_list(std::vector<float>(32, 1e-9f));
    EXPECT(pack_groups(panels.data(), type, small.data(), 0, 1, 32));
    EXPECT(panels[0] == (type == WeightType::kInt8 ? 0 : 0x88));
  }
}

TEST("f16: every half comes back, and what lies between is rounded to the nearest, ties to even") {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float wide = from_f16(static_cast<uint16_t>(half));
    if (std::isnan(wide)) {
      EXPECT(std::isnan(from_f16(to_f16(wide))), half);
      continue;
    }
    EXPECT(to_f16(wide) == half, half, " ", to_f16(wide));
    if ((half & 0x7fff) >= 0x7bff) continue;
    const float next = from_f16(static_cast<uint16_t>(half + 1));
    const float middle = (wide + next) / 2;
    EXPECT(to_f16(middle) == (half % 2 == 0 ? half : half + 1), half);
    EXPECT(to_f16(std::nextafter(middle, wide)) == half, half);
    EXPECT(to_f16(std::nextafter(middle, next)) == half + 1, half);
  }
  EXPECT(to_f16(65520.0f) == 0x7c00 && to_f16(65519.0f) == 0x7bff && to_f16(1e-9f) == 0);
}

}  // namespace
}  // namespace tessera::testing
