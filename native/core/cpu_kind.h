// Which kernels run here. TESSERA_CPU=scalar|avx2|avx512 forces one; asking for more than the
// machine has throws.
#pragma once

namespace tessera {

enum class CpuKind { kScalar, kAvx2, kAvx512 };

CpuKind detect_cpu_kind();
const char* cpu_kind_name(CpuKind kind);
// Whether this machine has VNNI beside AVX-512.
bool has_vnni();

}  // namespace tessera
