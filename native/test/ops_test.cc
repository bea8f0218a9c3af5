// Every kind of kernels this machine has gives the scalar reference's bits, over awkward shapes,
// threads and rows.
#include "ops/ops.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "core/bf16.h"
#include "core/math.h"

namespace {

using namespace tessera;

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  ++failures;
  std::printf("failed: %s\n", what);
}

std::vector<float> random_values(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& value : out) value = normal(random);
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (const float value : a)
    if (std::isnan(value)) return false;
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<Context> contexts(const ThreadPool& one, const ThreadPool& three) {
  std::vector<Context> out;
  for (int kind = 0; kind <= static_cast<int>(detect_cpu_kind()); ++kind)
    for (const ThreadPool* pool : {&one, &three})
      out.push_back({const_cast<ThreadPool*>(pool), static_cast<CpuKind>(kind)});
  return out;
}

// Runs `op` under every context; the first is scalar on one thread.
template <typename Op>
void compare(const char* name, const std::vector<Context>& all, Op op) {
  const std::vector<float> reference = op(all[0]);
  for (const Context& context : all) expect(same_bits(op(context), reference), name);
}

void test_linear(const std::vector<Context>& all) {
  for (const int rows : {1, 2, 5, 7, 8, 13, 97, 100})
    for (const int outputs : {1, 63, 64, 65, 130})
      for (const int inputs : {1, 17, 192, 193, 400}) {
        const auto x = random_values(static_cast<size_t>(rows) * 2 * inputs, rows + inputs);
        const auto bias = random_values(outputs, outputs);
        std::vector<std::vector<uint16_t>> data(2);
        std::vector<Panels> lanes;
        for (int lane = 0; lane < 2; ++lane) {
          const auto wide = random_values(static_cast<size_t>(outputs) * inputs, lane + outputs);
          std::vector<uint16_t> narrow(wide.size());
          for (size_t i = 0; i < wide.size(); ++i) narrow[i] = to_bf16(wide[i]);
          data[lane].assign(panel_bytes(outputs, inputs) / 2, 0);
          pack_panels(data[lane].data(), narrow.data(), 0, outputs, inputs);
          lanes.push_back({data[lane].data(), outputs, inputs});
        }
        const std::vector<int> starts = {0, inputs};
        const auto run = [&](const Context& context, int first, int count) {
          std::vector<float> y(static_cast<size_t>(count) * outputs);
          linear(context, {y.data(), x.data() + static_cast<size_t>(first) * 2 * inputs,
                           static_cast<size_t>(outputs), static_cast<size_t>(2 * inputs), count,
                           lanes, starts, bias.data(), Epilogue::kGelu});
          return y;
        };
        compare("linear", all, [&](const Context& c) { return run(c, 0, rows); });
        const auto whole = run(all.back(), 0, rows);
        const auto last = run(all.back(), rows - 1, 1);
        expect(same_bits(last, {whole.end() - outputs, whole.end()}), "linear: a row alone");
      }
}

void test_norms(const std::vector<Context>& all) {
  for (const int dim : {1, 15, 16, 17, 144, 257}) {
    const auto x = random_values(3 * dim, dim);
    const auto weight = random_values(dim, 2), bias = random_values(dim, 3);
    std::vector<float> y(x.size());
    compare("rms_norm", all, [&](const Context& c) {
      rms_norm(c, y.data(), x.data(), weight.data(), 3, dim, 1e-6f);
      return y;
    });
    compare("layer_norm", all, [&](const Context& c) {
      layer_norm(c, y.data(), x.data(), weight.data(), bias.data(), 3, dim, 1e-5f);
      return y;
    });
    compare("silu_mul", all, [&](const Context& c) {
      std::vector<float> out(3 * (dim / 2) + 1);
      silu_mul(c, out.data(), x.data(), 3, dim / 2);
      return out;
    });
    compare("gelu", all, [&](const Context& c) {
      gelu(c, y.data(), x.data(), x.size());
      return y;
    });
    compare("residual", all, [&](const Context& c) {
      std::vector<float> h = x;
      residual(c, h.data(), y.data(), bias.data(), weight.data(), 3, dim);
      return h;
    });
    compare("head_log_sum", all, [&](const Context& c) {
      const LogSum sum = head_log_sum(c, x.data(), 3 * dim, 0.7f);
      return std::vector<float>{sum.max, sum.sum};
    });
  }
}

// Attention of the last rows, the cache written whole, against a plain softmax in double.
void test_attention(const std::vector<Context>& all) {
  constexpr int kHeads = 4, kKv = 2;
  for (const int head_dim : {16, 32, 128})
    for (const int length : {1, 31, 33, 256, 257, 600}) {
      const int width = (kHeads + 2 * kKv) * head_dim;
      const auto qkv = random_values(static_cast<size_t>(length) * width, length + head_dim);
      std::vector<int32_t> table((length + kBlockTokens - 1) / kBlockTokens);
      for (size_t i = 0; i < table.size(); ++i)
        table[i] = static_cast<int32_t>(table.size() - 1 - i);
      std::vector<int64_t> slots(length);
      std::vector<AttentionRow> rows(length);
      for (int p = 0; p < length; ++p) {
        slots[p] = static_cast<int64_t>(table[p / kBlockTokens]) * kBlockTokens + p % kBlockTokens;
        rows[p] = {table.data(), p};
      }
      const auto run = [&](const Context& c, CacheType type) {
        std::vector<float> cache(table.size() * kKv * 2 * head_dim * kBlockTokens, 0.0f);
        const CacheView view{cache.data(), type, kKv, head_dim};
        write_cache(c,
                    {view, qkv.data() + kHeads * head_dim, qkv.data() + (kHeads + kKv) * head_dim,
                     static_cast<size_t>(width), length, slots.data()});
        std::vector<float> out(static_cast<size_t>(length) * kHeads * head_dim);
        attention(c,
                  {out.data(), qkv.data(), static_cast<size_t>(kHeads * head_dim),
                   static_cast<size_t>(width), view, length, kHeads, head_dim, 0.25f, rows.data()});
        return out;
      };
      compare("attention f32", all, [&](const Context& c) { return run(c, CacheType::kF32); });
      compare("attention bf16", all, [&](const Context& c) { return run(c, CacheType::kBf16); });
      const auto out = run(all.back(), CacheType::kF32);
      const float* q = qkv.data() + static_cast<size_t>(length - 1) * width + 3 * head_dim;
      std::vector<double> sum(head_dim, 0.0);
      double total = 0.0;
      for (int p = 0; p < length; ++p) {
        const float* k = qkv.data() + static_cast<size_t>(p) * width + (kHeads + 1) * head_dim;
        double score = 0.0;
        for (int d = 0; d < head_dim; ++d) score += double{q[d]} * k[d];
        const double weight = std::exp(score * 0.25);
        total += weight;
        for (int d = 0; d < head_dim; ++d) sum[d] += weight * k[kKv * head_dim + d];
      }
      const float* got = out.data() + (static_cast<size_t>(length) * kHeads - 1) * head_dim;
      for (int d = 0; d < head_dim; ++d)
        expect(std::fabs(got[d] - sum[d] / total) < 1e-4, "attention against double");
    }
}

void test_functions() {
  for (double x = 1e-6; x < 1e6; x *= 1.07)
    expect(std::fabs(log_f64(x) - std::log(x)) < 1e-13 * (1 + std::fabs(std::log(x))), "log");
  for (double x = -30; x < 30; x += 0.37)
    expect(std::fabs(exp_f64(x) / std::exp(x) - 1) < 1e-13, "exp");
  for (double x = 0; x < 40000; x += 3.7) {
    double s, c;
    sin_cos_f64(x, &s, &c);
    expect(std::fabs(s - std::sin(x)) < 1e-9 && std::fabs(c - std::cos(x)) < 1e-9, "sin, cos");
  }
  for (uint32_t id = 0; id < 1000; ++id)
    expect(std::isfinite(gumbel(1234567890123ull, 7, 2, id)), "gumbel is finite");
  expect(gumbel(1, 2, 3, 4) != gumbel(1, 2, 3, 5), "gumbel differs by id");
  expect(gumbel(1, 2, 3, 4) != gumbel(2, 2, 3, 4), "gumbel differs by seed");
}

}  // namespace

int main() {
  const ThreadPool one(1), three(3);
  const auto all = contexts(one, three);
  test_linear(all);
  test_norms(all);
  test_attention(all);
  test_functions();
  std::printf("%d failures, %zu contexts\n", failures, all.size());
  return failures == 0 ? 0 : 1;
}
