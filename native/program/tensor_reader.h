// Stored tensors as bf16 rows, from files mapped for reading.
#pragma once

#include <string>

#include "program/program.h"

namespace tessera {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  // First byte of a tensor. Throws BAD_MODEL when the file is too short for it.
  const uint8_t* at(const TensorSource& source, const std::string& tensor) const;
  // Lets go of a tensor's pages; they can be read again.
  void drop(const TensorSource& source) const;

 private:
  std::string path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

class TensorReader {
 public:
  TensorReader(const std::string& name, const TensorSource& source, const uint8_t* data);
  // Columns [first, first + count) of a row, rounded to bf16; false when a value is not finite.
  bool read(uint16_t* out, int64_t row, int64_t first, int64_t count) const;
  // Throws BAD_MODEL when the piece lies outside the tensor.
  void check_piece(const TensorPiece& piece) const;

 private:
  enum class Type { kBf16, kF16, kF32 };
  static Type type_of(const std::string& dtype, const std::string& tensor);

  std::string name_;
  const TensorSource& source_;
  const uint8_t* data_;
  Type type_;
};

}  // namespace tessera
