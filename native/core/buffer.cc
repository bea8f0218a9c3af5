#include "core/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "core/check.h"

namespace tessera {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = 4096;
constexpr size_t kLine = 64;

size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Begins at a 2 MiB page; `bytes` are whole small pages. What is left over of a larger mapping is
// given back, and the tail after the last whole 2 MiB stays in small pages, so that nothing is
// resident beyond what is used.
void* map_aligned(size_t bytes) {
  const size_t wide = bytes + kHugePage;
  void* mapped = mmap(nullptr, wide, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(mapped);
  const size_t lead =
      rounded(reinterpret_cast<size_t>(begin), kHugePage) - reinterpret_cast<size_t>(begin);
  if (lead > 0) munmap(begin, lead);
  if (lead < kHugePage) munmap(begin + lead + bytes, kHugePage - lead);
  madvise(begin + lead, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return begin + lead;
}

}  // namespace

void* allocate_pages(size_t bytes) {
  void* data = nullptr;
  if (bytes >= kHugePage) {
    data = map_aligned(rounded(bytes, kPage));
  } else {
    data = std::aligned_alloc(kLine, rounded(bytes, kLine));
    if (data != nullptr) std::memset(data, 0, rounded(bytes, kLine));
  }
  CHECK_CODE("OUT_OF_MEMORY", data != nullptr, bytes, " bytes cannot be allocated");
  return data;
}

void free_pages(void* data, size_t bytes) noexcept {
  if (data == nullptr) return;
  if (bytes >= kHugePage) {
    munmap(data, rounded(bytes, kPage));
  } else {
    std::free(data);
  }
}

}  // namespace tessera
