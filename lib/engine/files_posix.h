#pragma once
#include <cerrno>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

namespace wtool {

// What output sets ask of POSIX. Nothing here throws but for want of memory: results are those of
// the calls, and errno says why not.

// A call that a signal interrupted is made again: a handler only stores the signal's number.
template <class Call>
auto again(Call call) {
  decltype(call()) result;
  do result = call();
  while (result < 0 && errno == EINTR);
  return result;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const noexcept { return fd_; }
  int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Creates a file that is not there yet. Takes more descriptors where the limit allows.
int open_new(const std::string& path);
int open_folder(const std::string& path);  // itself, not where a link leads

int flush(int fd);
int flush_folder(const std::string& path);  // 0, or errno

bool same_file(int fd, const std::string& path) noexcept;
bool is_there(const std::string& path) noexcept;

// The folders on the way to `path`, behind the first `at` bytes of it: those before are there, or
// were removed by someone who will not want them back.
bool make_folders(const std::string& path, std::size_t at);

// Renames without replacing anything.
int rename_new(const char* from, const char* to, bool is_folder);
// Afterwards `from` is at `to`, and what was there is at `from`.
int swap_names(const std::string& from, const std::string& to);

struct FolderItem {
  std::string name;
  bool is_folder;  // itself, not where a link leads
};
// None if it cannot be read. (A directory_iterator would end the program for want of memory.)
std::optional<std::vector<FolderItem>> items_of(const std::string& folder);

// What is in the folder and not among these names, sorted; none if it cannot be read.
std::optional<std::vector<std::string>> strangers_in(const std::string& folder,
                                                     std::span<const std::string> names);

}  // namespace wtool
