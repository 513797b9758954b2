#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <tuple>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "lib/model/source.h"

namespace wtool {
namespace {

Error io_error(std::string_view verb, int code, const std::string& path) {
  Error e(Fault::Io, fmt::format("cannot {}: {}", verb, std::generic_category().message(code)));
  e.in(path);
  if (code == ENOENT) e.hint("check the path; relative paths start at the current folder");
  return e;
}

void check_range(const Source& s, std::uint64_t offset, std::uint64_t n) {
  if (offset > s.size() || n > s.size() - offset)
    throw Error(Fault::BadFile,
                fmt::format("{} bytes wanted at {} but the file ends at {}", n, offset, s.size()))
        .in(s.name());
}

// Which file, and in which state.
using Identity = std::tuple<dev_t, ino_t, off_t, time_t, long>;
Identity identity_of(const struct stat& s) noexcept {
  return {s.st_dev, s.st_ino, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec};
}

class File final : public Source {
 public:
  // Takes over `fd`.
  File(std::string path, int fd) : path_(std::move(path)), fd_(fd) {
    if (::fstat(fd_, &stat_) != 0) {
      const int code = errno;
      ::close(fd_);
      throw io_error("open", code, path_);
    }
    if (!S_ISREG(stat_.st_mode)) {
      ::close(fd_);
      throw Error(Fault::Io,
                  S_ISDIR(stat_.st_mode) ? "is a folder, not a file" : "is not a regular file")
          .in(path_);
    }
  }
  ~File() override { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& name() const noexcept override { return path_; }
  std::uint64_t size() const noexcept override { return static_cast<std::uint64_t>(stat_.st_size); }
  int descriptor() const noexcept override { return fd_; }

  void read(std::uint64_t offset, MutableBytes out) const override {
    check_range(*this, offset, out.size());
    while (!out.empty()) {
      const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw io_error("read", errno, path_);
      if (n == 0)
        throw Error(Fault::Io, fmt::format("was cut short while reading: byte {} is gone", offset))
            .in(path_);
      offset += static_cast<std::uint64_t>(n);
      out = out.subspan(static_cast<std::size_t>(n));
    }
  }

  Identity identity() const noexcept { return identity_of(stat_); }

  // Both what the descriptor shows now and what the name leads to must be what was opened.
  void check_unchanged() const override {
    struct stat now {};
    if (::fstat(fd_, &now) != 0) throw io_error("look at the input again", errno, path_);
    if (identity_of(now) == identity() && path_ != "-" && ::stat(path_.c_str(), &now) != 0)
      throw io_error("look at the input again", errno, path_);
    if (identity_of(now) != identity())
      throw Error(Fault::Io, "changed while reading; nothing was written").in(path_);
  }

 private:
  std::string path_;
  int fd_ = -1;
  struct stat stat_ {};
};

std::shared_ptr<const File> open_now(const std::string& path) {
  // O_NONBLOCK: opening a pipe or a device by mistake must not hang.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw io_error("open", errno, path);
  return std::make_shared<const File>(path, fd);
}

// A file without a descriptor of its own.
class OnDemand final : public Source {
 public:
  explicit OnDemand(const std::string& path) : path_(path) {
    const auto now = open_now(path);
    size_ = now->size();
    identity_ = now->identity();
  }
  const std::string& name() const noexcept override { return path_; }
  std::uint64_t size() const noexcept override { return size_; }
  void read(std::uint64_t offset, MutableBytes out) const override { again()->read(offset, out); }
  void check_unchanged() const override { again(); }

 private:
  std::shared_ptr<const File> again() const {
    auto now = open_now(path_);
    if (now->identity() != identity_)
      throw Error(Fault::Io, "changed while reading; nothing was written").in(path_);
    return now;
  }
  std::string path_;
  std::uint64_t size_ = 0;
  Identity identity_;
};

class Memory final : public Source {
 public:
  Memory(std::string name, Buffer bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {}
  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override { return bytes_.size(); }
  void read(std::uint64_t offset, MutableBytes out) const override {
    check_range(*this, offset, out.size());
    std::ranges::copy(Bytes(bytes_).subspan(offset, out.size()), out.begin());
  }

 private:
  std::string name_;
  Buffer bytes_;
};

int unnamed_temporary() {
  const char* folder = std::getenv("TMPDIR");
  if (!folder || !*folder) folder = "/tmp";
  int fd = ::open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) {  // a file system without O_TMPFILE
    std::string path = std::string(folder) + "/wtool-XXXXXX";
    fd = ::mkostemp(path.data(), O_CLOEXEC);
    if (fd >= 0) ::unlink(path.c_str());
  }
  if (fd < 0) throw io_error("create a temporary file", errno, folder);
  return fd;
}

void write_all(int fd, Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error("spool standard input", errno, "-");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

}  // namespace

SourcePtr open_file(const std::string& path) {
  return open_now(path);
}
SourcePtr open_on_demand(const std::string& path) {
  return std::make_shared<OnDemand>(path);
}
std::uint64_t allow_many_files() noexcept {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;
  if (limit.rlim_cur < limit.rlim_max) {
    const rlim_t before = std::exchange(limit.rlim_cur, limit.rlim_max);
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  }
  return limit.rlim_cur;
}
SourcePtr from_memory(std::string name, Buffer bytes) {
  return std::make_shared<Memory>(std::move(name), std::move(bytes));
}
SourcePtr from_stdin(const std::atomic<int>* stop) {
  const int fd = unnamed_temporary();
  try {
    Buffer piece(std::size_t{1} << 20);
    while (true) {
      if (stop && stop->load(std::memory_order_relaxed) != 0)
        throw Error(Fault::Cancelled, "interrupted").in("-");
      const ssize_t n = ::read(STDIN_FILENO, piece.data(), piece.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw io_error("read", errno, "-");
      if (n == 0) break;
      write_all(fd, Bytes(piece).first(static_cast<std::size_t>(n)));
    }
  } catch (...) {
    ::close(fd);
    throw;
  }
  return std::make_shared<File>("-", fd);
}

Buffer read_all(const Extent& extent) {
  Buffer out(extent.bytes);
  extent.source->read(extent.offset, out);
  return out;
}

}  // namespace wtool
