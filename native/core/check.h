// CHECK(condition, values…) throws CheckError with file, line, the condition and the values.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace tessera {

// Codes are those of native/src/engine.ts.
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message, int rank = -1)
      : std::runtime_error(message), code_(std::move(code)), rank_(rank) {}
  const std::string& code() const { return code_; }
  int rank() const { return rank_; }  // −1: nobody's

 private:
  std::string code_;
  int rank_;
};

template <typename... Values>
[[noreturn]] void throw_check(const char* code, const char* file, int line, const char* condition,
                              const Values&... values) {
  std::ostringstream out;
  ((out << values), ...);
  out << " (" << condition << ", " << file << ":" << line << ")";
  throw Error(code, out.str());
}

}  // namespace tessera

#define CHECK_CODE(code, condition, ...)                                                           \
  do {                                                                                             \
    if (!(condition)) ::tessera::throw_check(code, __FILE__, __LINE__, #condition, ##__VA_ARGS__); \
  } while (false)
#define CHECK(condition, ...) CHECK_CODE("INTERNAL", condition, ##__VA_ARGS__)
#define CHECK_ARGUMENT(condition, ...) CHECK_CODE("INVALID_ARGUMENT", condition, ##__VA_ARGS__)
#define CHECK_MODEL(condition, ...) CHECK_CODE("BAD_MODEL", condition, ##__VA_ARGS__)
