// The native tests' own small frame: a test is a sentence; a failed expectation is printed with its
// values.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "core/bf16.h"
#include "core/check.h"
#include "core/context.h"

namespace tessera::testing {

struct Registered {
  Registered(const char* sentence, void (*run)());
};
void fail(const char* file, int line, const std::string& text);

template <typename... Values>
std::string joined(const Values&... values) {
  std::ostringstream out;
  ((out << values), ...);
  return out.str();
}

// Seeded normal values.
std::vector<float> random_values(size_t count, uint32_t seed);
std::vector<uint16_t> to_bf16_list(const std::vector<float>& values);
// Equal to the bit and without NaN.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b);

// Every kind of kernels this machine has, on one thread and on three.
const std::vector<Context>& contexts();
std::string name_of(const Context& context);

}  // namespace tessera::testing

#define TESSERA_JOIN2(a, b) a##b
#define TESSERA_JOIN(a, b) TESSERA_JOIN2(a, b)
#define TEST(sentence)                                                             \
  static void TESSERA_JOIN(test_, __LINE__)();                                     \
  static const ::tessera::testing::Registered TESSERA_JOIN(registered_, __LINE__)( \
      sentence, TESSERA_JOIN(test_, __LINE__));                                    \
  static void TESSERA_JOIN(test_, __LINE__)()

#define EXPECT(condition, ...)                                                     \
  do {                                                                             \
    if (!(condition))                                                              \
      ::tessera::testing::fail(                                                    \
          __FILE__, __LINE__,                                                      \
          ::tessera::testing::joined(#condition, " " __VA_OPT__(, ) __VA_ARGS__)); \
  } while (false)

// `work` throws an Error with `code` whose text has `part`.
#define EXPECT_ERROR(code_wanted, part, work)                                                 \
  do {                                                                                        \
    std::string got = "nothing was thrown";                                                   \
    try {                                                                                     \
      work;                                                                                   \
    } catch (const ::tessera::Error& error) {                                                 \
      got = error.code() + ": " + error.what();                                               \
    }                                                                                         \
    EXPECT(got.starts_with(code_wanted) && got.find(part) != std::string::npos, "got ", got); \
  } while (false)
