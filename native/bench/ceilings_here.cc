#include "bench/ceilings.h"
#include "core/cpu_kind.h"

namespace tessera::bench {

#define TESSERA_CEILINGS(NAMESPACE)                         \
  namespace NAMESPACE {                                     \
  float read(const float* data, size_t count, int variant); \
  float fma(long turns, int variant, double* flops);        \
  }
TESSERA_CEILINGS(scalar)
#if defined(__x86_64__)
TESSERA_CEILINGS(avx2)
TESSERA_CEILINGS(avx512)
#endif

Ceilings ceilings_here() {
#if defined(__x86_64__)
  switch (detect_cpu_kind()) {
    case CpuKind::kAvx512:
      return {avx512::read, avx512::fma};
    case CpuKind::kAvx2:
      return {avx2::read, avx2::fma};
    case CpuKind::kScalar:
      break;
  }
#endif
  return {scalar::read, scalar::fma};
}

}  // namespace tessera::bench
