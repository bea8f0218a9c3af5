#include "bench/ceilings.h"
#include "core/cpu_kind.h"

namespace tessera::bench {

#define TESSERA_CEILINGS(NAMESPACE)                                  \
  namespace NAMESPACE {                                              \
  float read(const float* data, size_t count, int variant);          \
  float fma(long turns, int variant, double* flops);                 \
  float dots(WeightType type, long turns, int variant, double* ops); \
  }
TESSERA_CEILINGS(scalar)
#if defined(__x86_64__)
TESSERA_CEILINGS(avx2)
TESSERA_CEILINGS(avx512)
TESSERA_CEILINGS(avx512_vnni)
#endif

Ceilings ceilings_here() {
#if defined(__x86_64__)
  switch (detect_cpu_kind()) {
    case CpuKind::kAvx512:
      return {avx512::read, avx512::fma, has_vnni() ? avx512_vnni::dots : avx512::dots};
    case CpuKind::kAvx2:
      return {avx2::read, avx2::fma, avx2::dots};
    case CpuKind::kScalar:
      break;
  }
#endif
  return {scalar::read, scalar::fma, scalar::dots};
}

}  // namespace tessera::bench
