#include "core/cpu_kind.h"

#include <cstdlib>
#include <string>

#include "core/check.h"

namespace tessera {

namespace {

CpuKind best_cpu_kind() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  if (avx512) return CpuKind::kAvx512;
  if (avx2) return CpuKind::kAvx2;
#endif
  return CpuKind::kScalar;
}

}  // namespace

CpuKind detect_cpu_kind() {
  const CpuKind best = best_cpu_kind();
  const char* forced = std::getenv("TESSERA_CPU");
  if (forced == nullptr || *forced == '\0') return best;
  for (const CpuKind kind : {CpuKind::kScalar, CpuKind::kAvx2, CpuKind::kAvx512}) {
    if (std::string(forced) != cpu_kind_name(kind)) continue;
    CHECK_ARGUMENT(kind <= best, "TESSERA_CPU=", forced, ": this machine has at most ",
                   cpu_kind_name(best));
    return kind;
  }
  throw Error("INVALID_ARGUMENT",
              std::string("TESSERA_CPU=") + forced + ": must be scalar, avx2 or avx512");
}

bool has_vnni() {
#if defined(__x86_64__)
  static const bool has = [] {
    __builtin_cpu_init();
    return static_cast<bool>(__builtin_cpu_supports("avx512vnni"));
  }();
  return has;
#else
  return false;
#endif
}

const char* cpu_kind_name(CpuKind kind) {
  switch (kind) {
    case CpuKind::kAvx2:
      return "avx2";
    case CpuKind::kAvx512:
      return "avx512";
    case CpuKind::kScalar:
      break;
  }
  return "scalar";
}

}  // namespace tessera
