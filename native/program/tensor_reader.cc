#include "program/tensor_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/bf16.h"
#include "core/check.h"
#include "core/f16.h"

namespace tessera {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  CHECK_MODEL(fd >= 0, path, ": cannot be opened: ", std::strerror(errno));
  struct stat info = {};
  const bool known = fstat(fd, &info) == 0;
  size_ = static_cast<size_t>(info.st_size);
  data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  CHECK_MODEL(known && data_ != MAP_FAILED, path, ": cannot be mapped: ", std::strerror(errno));
}

MappedFile::~MappedFile() { munmap(data_, size_); }

const uint8_t* MappedFile::at(const TensorSource& source, const std::string& tensor) const {
  CHECK_MODEL(source.offset <= size_ && source.bytes <= size_ - source.offset, path_, ": tensor ",
              tensor, " ends at byte ", source.offset + source.bytes, ", the file has ", size_);
  return static_cast<const uint8_t*>(data_) + source.offset;
}

void MappedFile::drop(const TensorSource& source) const {
  constexpr uint64_t kPage = 4096;
  const uint64_t first = source.offset / kPage * kPage;
  madvise(static_cast<uint8_t*>(data_) + first, source.offset + source.bytes - first,
          MADV_DONTNEED);
}

TensorReader::Type TensorReader::type_of(const std::string& dtype, const std::string& tensor) {
  if (dtype == "BF16") return Type::kBf16;
  if (dtype == "F16") return Type::kF16;
  CHECK_MODEL(dtype == "F32", "tensor ", tensor, ": type ", dtype, " is not supported");
  return Type::kF32;
}

TensorReader::TensorReader(const std::string& name, const TensorSource& source, const uint8_t* data)
    : name_(name), source_(source), data_(data), type_(type_of(source.dtype, name)) {
  const uint64_t size = type_ == Type::kF32 ? 4 : 2;
  CHECK_MODEL(source.rows >= 0 && source.cols >= 0 &&
                  static_cast<uint64_t>(source.rows) * source.cols * size == source.bytes,
              "tensor ", name, ": ", source.bytes, " bytes for ", source.rows, " × ", source.cols);
}

namespace {

// `count` stored values of type T, each turned to bf16 by `convert`; false when one is not finite.
template <typename T, typename Convert>
bool read_values(uint16_t* out, const uint8_t* from, int64_t count, Convert convert) {
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    T stored;
    std::memcpy(&stored, from + i * sizeof(T), sizeof(T));
    out[i] = convert(stored);
    finite = finite && (out[i] & 0x7f80u) != 0x7f80u;
  }
  return finite;
}

}  // namespace

bool TensorReader::read(uint16_t* out, int64_t row, int64_t first, int64_t count) const {
  const int64_t at = row * source_.cols + first;
  switch (type_) {
    case Type::kF32:
      return read_values<float>(out, data_ + 4 * at, count, [](float v) { return to_bf16(v); });
    case Type::kF16:
      return read_values<uint16_t>(out, data_ + 2 * at, count,
                                   [](uint16_t v) { return to_bf16(from_f16(v)); });
    case Type::kBf16:
      break;
  }
  return read_values<uint16_t>(out, data_ + 2 * at, count, [](uint16_t v) { return v; });
}

void TensorReader::check_piece(const TensorPiece& piece) const {
  CHECK_MODEL(piece.row_start >= 0 && piece.col_start >= 0 &&
                  piece.row_start + piece.row_count <= source_.rows &&
                  piece.col_start + piece.col_count <= source_.cols,
              "tensor ", name_, ": ", source_.rows, " × ", source_.cols,
              " does not hold rows up to ", piece.row_start + piece.row_count, ", columns up to ",
              piece.col_start + piece.col_count);
}

}  // namespace tessera
