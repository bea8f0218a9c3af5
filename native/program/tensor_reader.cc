#include "program/tensor_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "core/bf16.h"
#include "core/check.h"

namespace tessera {

namespace {

float from_f16(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31u, mantissa = half & 0x3ffu;
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -value : value;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  CHECK_MODEL(fd >= 0, path, ": cannot be opened: ", std::strerror(errno));
  struct stat info;
  fstat(fd, &info);
  size_ = static_cast<size_t>(info.st_size);
  data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  CHECK_MODEL(data_ != MAP_FAILED, path, ": cannot be mapped: ", std::strerror(errno));
}

MappedFile::~MappedFile() { munmap(data_, size_); }

const uint8_t* MappedFile::at(const TensorSource& source, const std::string& tensor) const {
  CHECK_MODEL(source.offset <= size_ && source.bytes <= size_ - source.offset, path_, ": tensor ",
              tensor, " ends at byte ", source.offset + source.bytes, ", the file has ", size_);
  return static_cast<const uint8_t*>(data_) + source.offset;
}

TensorReader::TensorReader(const std::string& name, const TensorSource& source, const uint8_t* data)
    : name_(name), source_(source), data_(data) {
  const uint64_t size = source.dtype == "F32" ? 4 : 2;
  CHECK_MODEL(source.dtype == "F32" || source.dtype == "BF16" || source.dtype == "F16", "tensor ",
              name, ": type ", source.dtype, " is not supported");
  CHECK_MODEL(static_cast<uint64_t>(source.rows) * source.cols * size == source.bytes, "tensor ",
              name, ": ", source.bytes, " bytes for ", source.rows, " × ", source.cols);
}

bool TensorReader::read(uint16_t* out, int64_t row, int64_t first, int64_t count) const {
  bool finite = true;
  const int64_t at = row * source_.cols + first;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = value(at + i);
    finite = finite && (out[i] & 0x7f80u) != 0x7f80u;
  }
  return finite;
}

void TensorReader::check_piece(const TensorPiece& piece) const {
  CHECK_MODEL(piece.row_start >= 0 && piece.col_start >= 0 &&
                  piece.row_start + piece.row_count <= source_.rows &&
                  piece.col_start + piece.col_count <= source_.cols,
              "tensor ", name_, ": ", source_.rows, " × ", source_.cols,
              " does not hold rows up to ", piece.row_start + piece.row_count, ", columns up to ",
              piece.col_start + piece.col_count);
}

uint16_t TensorReader::value(int64_t at) const {
  if (source_.dtype == "F32") {
    float wide;
    std::memcpy(&wide, data_ + 4 * at, 4);
    return to_bf16(wide);
  }
  uint16_t half;
  std::memcpy(&half, data_ + 2 * at, 2);
  return source_.dtype == "BF16" ? half : to_bf16(from_f16(half));
}

}  // namespace tessera
