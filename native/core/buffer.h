// Memory that owns: aligned to 64 bytes, zeroed, in 2 MiB pages where the kernel has them and the
// buffer is large.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace tessera {

// Zeroed pages of whole 2 MiB (large) or of 64-byte lines (small). Throws OUT_OF_MEMORY.
void* allocate_pages(size_t bytes);
void free_pages(void* data, size_t bytes) noexcept;

// A fixed number of plain values; moved, never copied.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(size_t size)
      : data_(size == 0 ? nullptr : static_cast<T*>(allocate_pages(size * sizeof(T)))),
        size_(size) {}
  ~Buffer() { free_pages(data_, size_ * sizeof(T)); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tessera
