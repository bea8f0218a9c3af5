// A file of shared memory that two processes map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace tessera {

// Every failure is a NO_SHARED_MEMORY that says which file and why.
class SharedFile {
 public:
  // A new file of a name nobody can guess, for this user alone, all of its memory reserved; zero.
  // Files of processes that ended before they removed the name are removed from `dir`.
  static std::unique_ptr<SharedFile> create(const std::string& dir, size_t bytes);
  // Another process's, of exactly `bytes`. `name` is a name, not a path.
  static std::unique_ptr<SharedFile> open(const std::string& dir, const std::string& name,
                                          size_t bytes);
  // The memory stays mapped until then; the name goes when it is still there.
  ~SharedFile();
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  const std::string& name() const { return name_; }
  // Of one that was created: nobody can open it from now on, and it ends with its processes.
  void remove_name();

 private:
  SharedFile() = default;
  void map(int fd, size_t bytes);

  std::string path_, name_;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  int lock_ = -1;  // of one that was created, held as long as the name is there
};

// `count` random bytes of the system.
void random_bytes(uint8_t* out, size_t count);

}  // namespace tessera
