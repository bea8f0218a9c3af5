// Linears as shares of the machine's ceilings. One JSON object a line: name, value, unit, measure,
// goal.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bench/ceilings.h"
#include "core/buffer.h"
#include "ops/ops.h"

namespace tessera::bench {

namespace {

constexpr size_t kReadBytes = size_t{1} << 30;
constexpr double kDecodeGoal = 0.75, kPrefillGoal = 0.75;
constexpr double kIntegerDecodeGoal = 0.95, kIntegerPrefillGoal = 0.75;
int rounds = 9;
volatile float sink;

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Every contender once a round, round after round; the median rate of each.
struct Contender {
  std::function<void()> work;
  double amount;  // bytes, or flops
};
std::vector<double> rates(const std::vector<Contender>& contenders) {
  std::vector<std::vector<double>> times(contenders.size());
  for (int round = -1; round < rounds; ++round)
    for (size_t i = 0; i < contenders.size(); ++i) {
      const double time = seconds(contenders[i].work);
      if (round >= 0) times[i].push_back(time);
    }
  std::vector<double> out;
  for (size_t i = 0; i < contenders.size(); ++i)
    out.push_back(contenders[i].amount / median(times[i]));
  return out;
}

void print(const std::string& name, double value, const char* unit, const std::string& measure,
           double goal) {
  std::printf("{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"measure\":\"%s\"", name.c_str(),
              value, unit, measure.c_str());
  if (goal > 0) std::printf(",\"goal\":%.4g", goal);
  std::printf("}\n");
  std::fflush(stdout);
}

std::string text(const char* format, double value) {
  char out[96];
  std::snprintf(out, sizeof(out), format, value);
  return out;
}

// Weights of one shape: `copies` linears of random bf16, one or several lanes.
struct Layers {
  int outputs, inputs, lanes;
  std::vector<Buffer<uint16_t>> data;
  std::vector<std::vector<Panels>> panels;
  std::vector<int> starts;

  Layers(int outputs, int inputs, int lanes, size_t bytes)
      : outputs(outputs), inputs(inputs), lanes(lanes) {
    const int part = inputs / lanes;
    for (int lane = 0; lane < lanes; ++lane) starts.push_back(lane * part);
    const size_t each = panel_bytes(outputs, part) / sizeof(uint16_t);
    std::mt19937 random(17);
    while (data.size() * each * lanes * sizeof(uint16_t) < bytes) {
      Buffer<uint16_t> buffer(each * lanes);
      // Signs, exponents 2⁻⁸ … 2⁻¹ and mantissas at random.
      for (uint16_t& value : buffer)
        value = static_cast<uint16_t>((random() & 0x807f) | ((119 + random() % 8) << 7));
      std::vector<Panels> own;
      for (int lane = 0; lane < lanes; ++lane)
        own.push_back({buffer.data() + lane * each, outputs, part});
      panels.push_back(own);
      data.push_back(std::move(buffer));
    }
  }
  double bytes() const { return static_cast<double>(data.size()) * data[0].bytes(); }
  double flops(int rows) const {
    return 2.0 * rows * outputs * inputs * static_cast<double>(data.size());
  }
  void run(const Context& context, const Buffer<float>& x, Buffer<float>& y, int rows) const {
    for (const auto& own : panels)
      linear(context, {y.data(), x.data(), static_cast<size_t>(outputs),
                       static_cast<size_t>(inputs), rows, own, starts, nullptr, Epilogue::kNone});
  }
};

// The same of quantised weights.
struct GroupLayers {
  int outputs, inputs;
  std::vector<Buffer<uint8_t>> data;
  std::vector<std::vector<Panels>> panels;
  std::vector<int> starts;
  Buffer<uint8_t> scratch;

  GroupLayers(int outputs, int inputs, int lanes, WeightType type, size_t bytes)
      : outputs(outputs), inputs(inputs) {
    const int part = inputs / lanes;
    for (int lane = 0; lane < lanes; ++lane) starts.push_back(lane * part);
    const size_t each = panel_bytes(outputs, part, type);
    std::mt19937 random(17);
    while (data.size() * each * lanes < bytes) {
      Buffer<uint8_t> buffer(each * lanes);
      fill(buffer, group_bytes(type), random);
      std::vector<Panels> own;
      for (int lane = 0; lane < lanes; ++lane)
        own.push_back({nullptr, outputs, part, type, buffer.data() + lane * each});
      panels.push_back(own);
      data.push_back(std::move(buffer));
    }
    scratch = Buffer<uint8_t>(quantised_bytes(kQuantisedRows, panels[0]));
  }
  // Random integers; scales 2⁻⁸ … 2⁻⁷.
  static void fill(Buffer<uint8_t>& buffer, size_t group, std::mt19937& random) {
    for (size_t at = 0; at < buffer.size(); at += group) {
      const size_t scales = at + group - kPanelOutputs * sizeof(uint16_t);
      for (size_t i = at; i < scales; ++i) buffer[i] = static_cast<uint8_t>(random());
      for (size_t i = scales; i < at + group; i += 2) {
        buffer[i] = static_cast<uint8_t>(random());
        buffer[i + 1] = static_cast<uint8_t>(0x1c | (random() & 3));
      }
    }
  }
  double bytes() const { return static_cast<double>(data.size()) * data[0].bytes(); }
  double flops(int rows) const {
    return 2.0 * rows * outputs * inputs * static_cast<double>(data.size());
  }
  void run(const Context& context, const Buffer<float>& x, Buffer<float>& y, int rows) {
    for (const auto& own : panels)
      linear(context,
             {y.data(), x.data(), static_cast<size_t>(outputs), static_cast<size_t>(inputs), rows,
              own, starts, nullptr, Epilogue::kNone, scratch.data()});
  }
};

Buffer<float> random_floats(size_t count) {
  Buffer<float> out(count);
  std::mt19937 random(23);
  for (float& value : out) value = static_cast<float>(random()) * 0x1p-31f - 1.0f;
  return out;
}

struct Shape {
  const char* name;
  int outputs, inputs, lanes;
};
// Of Qwen2-72B on one of 8 ranks, and of Qwen2-0.5B whole.
constexpr Shape kShapes[] = {{"72b_tp8_qkv", 1280, 8192, 1},
                             {"72b_tp8_gate_up", 7424, 8192, 1},
                             {"72b_tp8_down", 8192, 3712, 1},
                             {"0.5b_gate_up", 9728, 896, 1},
                             {"0.5b_down", 896, 4864, 2}};

// Those that quantised weights are measured by.
constexpr Shape kGroupShapes[] = {{"72b_tp8_gate_up", 7424, 8192, 1}, {"0.5b_down", 896, 4864, 2}};
constexpr WeightType kGroupTypes[] = {WeightType::kInt8, WeightType::kInt4};

class Bench {
 public:
  explicit Bench(int threads)
      : pool_(threads), context_{&pool_, detect_cpu_kind()}, here_(ceilings_here()) {}

  void decode(const Buffer<float>& memory) {
    const Buffer<float> x = random_floats(8192 * 8);
    Buffer<float> y(9728 * 8);
    double best = 0;
    for (const Shape& shape : kShapes) {
      const Layers layers(shape.outputs, shape.inputs, shape.lanes, kReadBytes);
      const auto [ceiling, one, four] = few_rows(layers, memory, x, y);
      best = std::max(best, ceiling);
      const std::string measure = text("read ceiling %.1f GB/s, ", ceiling / 1e9) + threads_text();
      print(name("decode", shape.name, 1), one / ceiling, "ratio", measure, kDecodeGoal);
      print(name("decode", shape.name, 4), four / ceiling, "ratio", measure, 0);
    }
    print("kernels.read_ceiling.t" + std::to_string(pool_.threads()), best / 1e9, "GB/s",
          "best variant and round of " + threads_text(), 0);
  }

  void decode_groups(const Buffer<float>& memory) {
    const Buffer<float> x = random_floats(8192 * 8);
    Buffer<float> y(9728 * 8);
    for (const WeightType type : kGroupTypes)
      for (const Shape& shape : kGroupShapes) {
        GroupLayers layers(shape.outputs, shape.inputs, shape.lanes, type, kReadBytes / 2);
        const auto [ceiling, one, four] = few_rows(layers, memory, x, y);
        const std::string measure =
            text("read ceiling %.1f GB/s, ", ceiling / 1e9) + threads_text() + vnni_text();
        const std::string what = std::string("decode_") + weight_type_name(type);
        print(name(what, shape.name, 1), one / ceiling, "ratio", measure, kIntegerDecodeGoal);
        print(name(what, shape.name, 4), four / ceiling, "ratio", measure, 0);
      }
  }

  void prefill_groups() {
    const Buffer<float> x = random_floats(8192 * 512);
    Buffer<float> y(9728 * 512);
    for (const WeightType type : kGroupTypes)
      for (const Shape& shape : kGroupShapes) {
        GroupLayers layers(shape.outputs, shape.inputs, shape.lanes, type, 1);
        std::vector<double> ops(kDotVariants);
        constexpr long kTurns = 200'000;
        std::vector<Contender> contenders;
        for (int variant = 0; variant < kDotVariants; ++variant) {
          dots(type, kTurns / 100, variant, &ops[variant]);
          contenders.push_back(
              {[&, variant] { dots(type, kTurns, variant, &ops[variant]); }, 100 * ops[variant]});
        }
        for (const int rows : {64, 512})
          contenders.push_back(
              {[&, rows] { layers.run(context_, x, y, rows); }, layers.flops(rows)});
        const std::vector<double> rate = rates(contenders);
        const double ceiling = *std::max_element(rate.begin(), rate.begin() + kDotVariants);
        const std::string measure =
            text("integer ceiling %.1f GOP/s, ", ceiling / 1e9) + threads_text() + vnni_text();
        const std::string what = std::string("prefill_") + weight_type_name(type);
        print(name(what, shape.name, 64), rate[kDotVariants] / ceiling, "ratio", measure, 0);
        print(name(what, shape.name, 512), rate[kDotVariants + 1] / ceiling, "ratio", measure,
              type == WeightType::kInt8 ? kIntegerPrefillGoal : 0);
      }
  }

  void prefill() {
    const Buffer<float> x = random_floats(8192 * 512);
    Buffer<float> y(9728 * 512);
    double best = 0;
    for (const Shape& shape : kShapes) {
      const Layers layers(shape.outputs, shape.inputs, shape.lanes, 1);
      std::vector<double> flops(kFmaVariants);
      constexpr long kTurns = 4'000'000;
      std::vector<Contender> contenders;
      for (int variant = 0; variant < kFmaVariants; ++variant) {
        fma(kTurns / 100, variant, &flops[variant]);
        contenders.push_back(
            {[&, variant] { fma(kTurns, variant, &flops[variant]); }, 100 * flops[variant]});
      }
      for (const int rows : {64, 512})
        contenders.push_back({[&, rows] { layers.run(context_, x, y, rows); }, layers.flops(rows)});
      const std::vector<double> rate = rates(contenders);
      const double ceiling = *std::max_element(rate.begin(), rate.begin() + kFmaVariants);
      best = std::max(best, ceiling);
      const std::string measure =
          text("fma ceiling %.1f GFLOP/s, ", ceiling / 1e9) + threads_text();
      print(name("prefill", shape.name, 64), rate[kFmaVariants] / ceiling, "ratio", measure, 0);
      print(name("prefill", shape.name, 512), rate[kFmaVariants + 1] / ceiling, "ratio", measure,
            kPrefillGoal);
    }
    print("kernels.fma_ceiling.t" + std::to_string(pool_.threads()), best / 1e9, "GFLOP/s",
          "best variant and round of " + threads_text(), 0);
  }

 private:
  // Bytes a second of reading at best, and of linears over one row and over four.
  struct FewRows {
    double ceiling, one, four;
  };
  template <typename Weights>
  FewRows few_rows(Weights& layers, const Buffer<float>& memory, const Buffer<float>& x,
                   Buffer<float>& y) {
    std::vector<Contender> contenders;
    for (int variant = 0; variant < kReadVariants; ++variant)
      contenders.push_back(
          {[&, variant] { read(memory, variant); }, static_cast<double>(memory.bytes())});
    for (const int rows : {1, 4})
      contenders.push_back({[&, rows] { layers.run(context_, x, y, rows); }, layers.bytes()});
    const std::vector<double> rate = rates(contenders);
    return {*std::max_element(rate.begin(), rate.begin() + kReadVariants), rate[kReadVariants],
            rate[kReadVariants + 1]};
  }

  std::string threads_text() const {
    return std::string(cpu_kind_name(context_.kind)) + ", " + std::to_string(pool_.threads()) +
           (pool_.threads() == 1 ? " thread" : " threads");
  }
  std::string vnni_text() const {
    return context_.kind == CpuKind::kAvx512 && has_vnni() ? ", VNNI" : "";
  }
  std::string name(const std::string& what, const char* shape, int rows) const {
    return "kernels." + what + "." + shape + ".m" + std::to_string(rows) + ".t" +
           std::to_string(pool_.threads());
  }
  void read(const Buffer<float>& memory, int variant) {
    const size_t part = memory.size() / pool_.threads();
    pool_.parallel_for(pool_.threads(),
                       [&](int i) { sink = here_.read(memory.data() + i * part, part, variant); });
  }
  // All threads; `flops` counts those of all.
  void fma(long turns, int variant, double* flops) {
    double own = 0;
    pool_.parallel_for(pool_.threads(), [&](int i) {
      double mine;
      sink = here_.fma(turns, variant, &mine);
      if (i == 0) own = mine;
    });
    *flops = own * pool_.threads();
  }

  void dots(WeightType type, long turns, int variant, double* ops) {
    double own = 0;
    pool_.parallel_for(pool_.threads(), [&](int i) {
      double mine;
      sink = here_.dots(type, turns, variant, &mine);
      if (i == 0) own = mine;
    });
    *ops = own * pool_.threads();
  }

  ThreadPool pool_;
  Context context_;
  Ceilings here_;
};

}  // namespace

}  // namespace tessera::bench

int main(int count, char** arguments) {
  using namespace tessera;
  if (count > 1) bench::rounds = std::max(1, std::atoi(arguments[1]));
  const Buffer<float> memory = bench::random_floats(bench::kReadBytes / sizeof(float));
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  std::vector<int> threads = {1};
  if (cores > 1) threads.push_back(cores);
  for (const int n : threads) {
    bench::Bench bench(n);
    bench.decode(memory);
    bench.prefill();
    bench.decode_groups(memory);
    bench.prefill_groups();
  }
}
