#include "lib/engine/files_posix.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <unordered_set>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace wtool {
namespace fs = std::filesystem;
namespace {

// A folder of 10,000 NPY files needs as many descriptors: takes what the hard limit allows.
bool raise_file_limit() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return false;
  limit.rlim_cur = limit.rlim_max;
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

}  // namespace

int open_new(const std::string& path) {
  while (true) {
    const int fd =
        again([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
    if (fd >= 0 || errno != EMFILE || !raise_file_limit()) return fd;
  }
}

int open_folder(const std::string& path) {
  return again(
      [&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); });
}

int flush(int fd) {
  return again([&] { return ::fsync(fd); });
}
int flush_folder(const std::string& path) {
  const Descriptor folder(
      again([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (folder.get() < 0) return errno;
  // EINVAL: a file system whose folders can't be flushed.
  return flush(folder.get()) == 0 || errno == EINVAL ? 0 : errno;
}

bool same_file(int fd, const std::string& path) noexcept {
  struct stat a {
  }, b{};
  return ::fstat(fd, &a) == 0 && ::lstat(path.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

bool is_there(const std::string& path) noexcept {
  struct stat s {};
  return ::lstat(path.c_str(), &s) == 0 || errno != ENOENT;
}

bool make_folders(const std::string& path, std::size_t at) {
  while ((at = path.find('/', at + 1)) != std::string::npos)
    if (::mkdir(path.substr(0, at).c_str(), 0777) != 0 && errno != EEXIST) return false;
  return true;
}

int rename_new(const char* from, const char* to, bool is_folder) {
  if (::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  // A file system without it. A folder's rename replaces at most an empty folder; a file's would
  // replace, but a link to it does not.
  if (!is_folder) {
    if (::link(from, to) == 0) return ::unlink(from);
    if (errno != EPERM && errno != ENOTSUP) return -1;
  }
  struct stat s {};
  if (::lstat(to, &s) == 0) {
    errno = EEXIST;
    return -1;
  }
  return ::rename(from, to);
}

int swap_names(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  // A file system without it: in three steps. The name in between is none that a later run removes.
  const std::string aside = fmt::format("{}.old", from);
  if (::rename(to.c_str(), aside.c_str()) != 0) return -1;
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const int code = errno;
    ::rename(aside.c_str(), to.c_str());
    errno = code;
    return -1;
  }
  if (::rename(aside.c_str(), from.c_str()) == 0) return 0;
  const int code = errno;
  if (::rename(to.c_str(), from.c_str()) == 0) ::rename(aside.c_str(), to.c_str());
  errno = code;
  return -1;
}

std::optional<std::vector<FolderItem>> items_of(const std::string& folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder.c_str()), ::closedir);
  if (!dir) return std::nullopt;
  std::vector<FolderItem> out;
  while (true) {
    errno = 0;
    const struct dirent* entry = ::readdir(dir.get());
    if (!entry) break;
    FolderItem item{.name = entry->d_name, .is_folder = entry->d_type == DT_DIR};
    if (item.name == "." || item.name == "..") continue;
    struct stat s {};
    if (entry->d_type == DT_UNKNOWN) {  // a file system that does not say it here
      if (::fstatat(::dirfd(dir.get()), entry->d_name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        return std::nullopt;
      item.is_folder = S_ISDIR(s.st_mode);
    }
    out.push_back(std::move(item));
  }
  if (errno != 0) return std::nullopt;
  return out;
}

std::optional<std::vector<std::string>> strangers_in(const std::string& folder,
                                                     std::span<const std::string> names) {
  std::unordered_set<std::string> ours;
  for (const std::string& n : names) {
    fs::path path = fs::path(n).lexically_normal();
    ours.insert(path.native());
    while (path.has_parent_path() && path.has_relative_path())
      ours.insert((path = path.parent_path()).native() + "/");
  }
  std::vector<std::string> out, below = {""};  // folders that are still to be looked into
  while (!below.empty()) {
    const std::string in = std::move(below.back());
    below.pop_back();
    const auto items = items_of(in.empty() ? folder : fmt::format("{}/{}", folder, in));
    if (!items) return std::nullopt;
    for (const FolderItem& item : *items) {
      const std::string name = in + item.name;
      if (!ours.contains(item.is_folder ? name + "/" : name)) out.push_back(name);
      if (item.is_folder) below.push_back(name + "/");
    }
  }
  std::ranges::sort(out);
  return out;
}

}  // namespace wtool
