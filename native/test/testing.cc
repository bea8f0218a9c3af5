#include "test/testing.h"

namespace tessera::testing {

namespace {

struct Test {
  const char* sentence;
  void (*run)();
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

int failures = 0;
constexpr int kMaxPrinted = 20;

}  // namespace

Registered::Registered(const char* sentence, void (*run)()) { tests().push_back({sentence, run}); }

void fail(const char* file, int line, const std::string& text) {
  if (++failures <= kMaxPrinted) std::printf("  %s:%d: %s\n", file, line, text.c_str());
}

std::vector<float> random_values(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& value : out) value = normal(random);
  return out;
}

std::vector<uint16_t> to_bf16_list(const std::vector<float>& values) {
  std::vector<uint16_t> out;
  for (const float value : values) out.push_back(to_bf16(value));
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (const float value : a)
    if (std::isnan(value)) return false;
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

const std::vector<Context>& contexts() {
  static ThreadPool one(1), three(3);
  static const std::vector<Context> all = [] {
    std::vector<Context> out;
    for (int kind = 0; kind <= static_cast<int>(detect_cpu_kind()); ++kind)
      for (ThreadPool* pool : {&one, &three}) out.push_back({pool, static_cast<CpuKind>(kind)});
    return out;
  }();
  return all;
}

std::string name_of(const Context& context) {
  return joined(cpu_kind_name(context.kind), ", ", context.pool->threads(), " threads");
}

}  // namespace tessera::testing

int main() {
  using namespace tessera::testing;
  int failed = 0;
  for (const Test& test : tests()) {
    const int before = failures;
    try {
      test.run();
    } catch (const std::exception& error) {
      fail(test.sentence, 0, error.what());
    }
    if (failures == before) continue;
    ++failed;
    std::printf("failed: %s\n", test.sentence);
  }
  std::printf("%zu tests, %d failed\n", tests().size(), failed);
  return failed == 0 && !tests().empty() ? 0 : 1;
}
