#include "collective/shared_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "core/check.h"

namespace tessera {

namespace {

constexpr char kPrefix[] = "tessera-";
constexpr size_t kIdBytes = 16;
constexpr time_t kYoungSeconds = 60;  // a file may not be locked yet

[[noreturn]] void fail(const std::string& what, const std::string& path, int error) {
  throw Error("NO_SHARED_MEMORY", path + " " + what + ": " + std::strerror(error));
}

// Closes its file when it ends.
struct File {
  int fd;
  ~File() {
    if (fd >= 0) ::close(fd);
  }
};

std::string fresh_name() {
  uint8_t id[kIdBytes];
  random_bytes(id, sizeof(id));
  std::string name = kPrefix;
  for (const uint8_t byte : id)
    for (const int digit : {byte >> 4, byte & 15}) name += "0123456789abcdef"[digit];
  return name;
}

bool is_name(const std::string& name) {
  return name.size() == sizeof(kPrefix) - 1 + 2 * kIdBytes && name.starts_with(kPrefix) &&
         name.find('/') == std::string::npos;
}

// Removes a shared file whose process is gone: nobody holds its lock.
void remove_stale(const std::string& path) {
  const File file{::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC)};
  struct stat facts {};
  if (file.fd < 0 || ::fstat(file.fd, &facts) != 0 || facts.st_uid != ::geteuid()) return;
  if (facts.st_mtime > ::time(nullptr) - kYoungSeconds) return;
  if (::flock(file.fd, LOCK_EX | LOCK_NB) == 0) ::unlink(path.c_str());
}

void remove_all_stale(const std::string& dir) {
  DIR* const folder = ::opendir(dir.c_str());
  if (folder == nullptr) return;
  while (const dirent* entry = ::readdir(folder))
    if (is_name(entry->d_name)) remove_stale(dir + "/" + entry->d_name);
  ::closedir(folder);
}

}  // namespace

void random_bytes(uint8_t* out, size_t count) {
  for (size_t done = 0; done < count;) {
    const ssize_t got = ::getrandom(out + done, count - done, 0);
    if (got < 0 && errno != EINTR) fail("gives no random bytes", "getrandom", errno);
    if (got > 0) done += static_cast<size_t>(got);
  }
}

void SharedFile::map(int fd, size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) fail("cannot be mapped", path_, errno);
  data_ = static_cast<uint8_t*>(memory);
  bytes_ = bytes;
}

std::unique_ptr<SharedFile> SharedFile::create(const std::string& dir, size_t bytes) {
  remove_all_stale(dir);
  std::unique_ptr<SharedFile> made(new SharedFile());
  made->name_ = fresh_name();
  made->path_ = dir + "/" + made->name_;
  const int fd = ::open(made->path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                        S_IRUSR | S_IWUSR);
  if (fd < 0) fail("cannot be made", made->path_, errno);
  made->lock_ = fd;
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) fail("cannot be locked", made->path_, errno);
  // Reserved now: memory that is not to be had later would end the process.
  const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (error != 0) fail("cannot take " + std::to_string(bytes) + " bytes", made->path_, error);
  made->map(fd, bytes);
  return made;
}

std::unique_ptr<SharedFile> SharedFile::open(const std::string& dir, const std::string& name,
                                             size_t bytes) {
  if (!is_name(name)) throw Error("NO_SHARED_MEMORY", name + " is no name of a shared file");
  std::unique_ptr<SharedFile> made(new SharedFile());
  made->name_ = name;
  made->path_ = dir + "/" + name;
  const File file{::open(made->path_.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC)};
  if (file.fd < 0) fail("cannot be opened", made->path_, errno);
  struct stat facts {};
  if (::fstat(file.fd, &facts) != 0) fail("cannot be looked at", made->path_, errno);
  if (!S_ISREG(facts.st_mode) || static_cast<uint64_t>(facts.st_size) != bytes)
    throw Error("NO_SHARED_MEMORY", made->path_ + " has " + std::to_string(facts.st_size) +
                                        " bytes, must have " + std::to_string(bytes));
  made->map(file.fd, bytes);
  return made;
}

SharedFile::~SharedFile() {
  remove_name();
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

void SharedFile::remove_name() {
  if (lock_ < 0) return;
  ::unlink(path_.c_str());
  ::close(lock_);
  lock_ = -1;
}

}  // namespace tessera
