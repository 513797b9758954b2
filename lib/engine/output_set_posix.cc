#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <limits>
#include <system_error>
#include <thread>
#include <unordered_set>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/engine/output_set.h"

namespace wtool {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;  // what is copied at a time by hand
// A stretch is handed to the disk when 15/16 of it have arrived: gaps between tensors never do.
// Measured on ext4: 4 to 64 MiB take half the time of leaving all to fsync, 8 the least.
constexpr std::uint64_t kStretch = std::uint64_t{8} << 20, kEnough = kStretch / 16 * 15;
constexpr std::size_t kMostNamed = 20;
constexpr unsigned kFlushers = 8;

Error io_error(std::string_view what, std::string_view path, int code) {
  return Error(Fault::Io, fmt::format("{}: {}", what, std::generic_category().message(code)))
      .in(path);
}
Error exists(const std::string& path) {
  return Error(Fault::Usage, "already exists").in(path).hint("use --force to replace it");
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// Bytes that we may still take; no answer from file systems that don't count them.
std::optional<std::uint64_t> free_bytes(const fs::path& folder) {
  struct statvfs s {};
  if (::statvfs(folder.c_str(), &s) != 0 || s.f_blocks == 0) return std::nullopt;
  return checked_mul(s.f_bavail, s.f_frsize);
}
// For a failure that more room would have prevented.
std::string and_free(const std::string& what, const fs::path& folder, int code) {
  if (code != ENOSPC && code != EDQUOT) return what;
  const auto free = free_bytes(folder);
  return free ? fmt::format("{} ({} bytes are free)", what, *free) : what;
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

// A folder of 10,000 NPY files needs as many descriptors: takes what the hard limit allows.
bool raise_file_limit() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return false;
  limit.rlim_cur = limit.rlim_max;
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

int open_new(const std::string& path) {
  while (true) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 || errno == EINTR) {
      if (fd >= 0) return fd;
    } else if (errno != EMFILE || !raise_file_limit()) {
      return -1;
    }
  }
}

int open_unnamed() {
  const char* folder = std::getenv("TMPDIR");
  if (!folder || !*folder) folder = "/tmp";
  int fd = ::open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) {  // a file system without O_TMPFILE
    std::string path = std::string(folder) + "/wtool-XXXXXX";
    fd = ::mkostemp(path.data(), O_CLOEXEC);
    if (fd >= 0) ::unlink(path.c_str());
  }
  if (fd < 0) throw io_error("cannot create a temporary file", folder, errno);
  return fd;
}

int flush(int fd) {
  int result = 0;
  do result = ::fsync(fd);
  while (result != 0 && errno == EINTR);
  return result;
}
void flush_folder(const fs::path& path) {
  const Descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0) throw io_error("cannot open the folder", path.native(), errno);
  // EINVAL: a file system whose folders can't be flushed.
  if (flush(folder.get()) != 0 && errno != EINVAL)
    throw io_error("cannot flush the folder", path.native(), errno);
}

// '.NAME.wtool-': what comes before the process id. A long name is cut, so that the whole fits.
std::string staging_prefix(const fs::path& target) {
  constexpr std::size_t kMostName = 255 - std::string_view("..wtool-4194304000").size();
  return fmt::format(".{}.wtool-", target.filename().native().substr(0, kMostName));
}

// An open, locked folder; -1 if it is not there, is no folder, or someone else holds it.
int lock_folder(const fs::path& path, int how) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.get() < 0) return -1;
  int result = 0;
  do result = ::flock(fd.get(), how);
  while (result != 0 && errno == EINTR);
  return result == 0 ? fd.release() : -1;
}

// Removes what killed runs for the same target left. Whoever works in such a folder holds its lock.
void remove_stale(const fs::path& folder, const std::string& prefix) {
  std::error_code ignored;
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end;
       it.increment(ignored)) {
    const std::string name = it->path().filename().native();
    if (!name.starts_with(prefix) || !parse_u64(std::string_view(name).substr(prefix.size())))
      continue;
    const Descriptor lock(lock_folder(it->path(), LOCK_EX | LOCK_NB));
    std::error_code best_effort;
    if (lock.get() >= 0) fs::remove_all(it->path(), best_effort);
  }
}

bool same_file(int fd, const std::string& path) {
  struct stat a {
  }, b{};
  return ::fstat(fd, &a) == 0 && ::lstat(path.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

// The last line of defence: whoever made the name up should have refused it already.
void check_name(const std::string& name) {
  const fs::path path(name);
  bool bad = name.empty() || path.is_absolute() || name.back() == '/' ||
             name.find('\0') != std::string::npos;
  for (const fs::path& part : path) bad = bad || part == ".." || part == ".";
  if (bad)
    throw Error(Fault::Usage,
                fmt::format("{} is no file name within a folder", wtool::quoted(name)));
}

// Renames without replacing anything, or says why not in errno.
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

// Afterwards `from` is at `to`, and what was there is at `from`.
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
  return ::rename(aside.c_str(), from.c_str());
}

void write_all(int fd, Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EPIPE) throw Error(Fault::Cancelled, "the reader has gone").in("-");
    if (n < 0) throw io_error("cannot write to standard output", "-", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

}  // namespace

OutputSet::OutputSet(std::string target, Kind kind, Existing existing)
    : target_(std::move(target)), kind_(kind), existing_(existing) {
  if (kind_ == Kind::Stdout) return;
  while (target_.size() > 1 && target_.back() == '/') target_.pop_back();
  settle_target();
  make_staging();
}

OutputSet::~OutputSet() {
  for (const File& f : files_) ::close(f.fd);
  std::error_code ignored;
  if (!staging_.empty()) fs::remove_all(staging_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

void OutputSet::settle_target() {
  if (target_.empty()) throw Error(Fault::Usage, "the output has no name");
  final_ = target_;
  struct stat s {};
  if (::lstat(target_.c_str(), &s) != 0) {
    if (errno != ENOENT) throw io_error("cannot look at the output's place", target_, errno);
    return;
  }
  if (existing_ == Existing::Refuse) throw exists(target_);
  // A link is replaced itself: what it leads to may be another's, such as a cache's blob. A folder
  // behind a link cannot be exchanged that way.
  if (S_ISLNK(s.st_mode)) {
    if (kind_ == Kind::Folder)
      throw Error(Fault::Usage, "is a link, so the folder it leads to is not replaced")
          .in(target_)
          .hint("name the folder itself, or remove the link");
    replaces_ = true;
    return;
  }
  if (::stat(final_.c_str(), &s) != 0)
    throw io_error("cannot look at the output's place", target_, errno);
  if (kind_ == Kind::File && S_ISDIR(s.st_mode))
    throw Error(Fault::Usage, "is a folder, but the output is one file").in(target_);
  if (kind_ == Kind::File && !S_ISREG(s.st_mode))
    throw Error(Fault::Usage, "is neither a file nor a folder, so it is not replaced")
        .in(target_)
        .hint("'-o -' writes to standard output");
  if (kind_ == Kind::Folder && !S_ISDIR(s.st_mode))
    throw Error(Fault::Usage, "is a file, but the output is a folder").in(target_);
  replaces_ = true;
}

void OutputSet::make_staging() {
  const fs::path path(final_);
  if (!path.has_filename()) throw Error(Fault::Usage, "cannot be replaced").in(target_);
  const fs::path folder = folder_of(path);
  const std::string prefix = staging_prefix(path);
  remove_stale(folder, prefix);
  const std::string name = folder / fmt::format("{}{}", prefix, ::getpid());
  // Between mkdir and flock another run can take the folder for a stale one: then it is gone, and
  // made again.
  for (int tries = 0; tries < 100; ++tries) {
    if (::mkdir(name.c_str(), 0777) != 0) {
      Error e = io_error("cannot write here", target_, errno);
      if (errno == ENOENT)
        e.hint(fmt::format("there is no folder {}", wtool::quoted(folder.native())));
      if (errno == EEXIST) e.hint("another output of this name is being written");
      throw e;
    }
    lock_ = lock_folder(name, LOCK_EX);
    // No lock: a file system that has none. Then nobody can take it for stale either.
    if (lock_ < 0 || same_file(lock_, name)) {
      staging_ = name;
      return;
    }
    ::close(std::exchange(lock_, -1));
  }
  throw Error(Fault::Io, "cannot keep a temporary folder beside it").in(target_);
}

void OutputSet::check_replaceable(std::span<const std::string> names) const {
  if (kind_ != Kind::Folder || !replaces_) return;
  std::unordered_set<std::string> ours;
  for (const std::string& n : names) {
    fs::path path = fs::path(n).lexically_normal();
    ours.insert(path.native());
    while (path.has_parent_path() && path.has_relative_path())
      ours.insert((path = path.parent_path()).native() + "/");
  }
  std::vector<std::string> in_the_way;
  try {
    for (const fs::directory_entry& e : fs::recursive_directory_iterator(final_)) {
      const std::string name = fs::path(e.path()).lexically_relative(final_).native();
      const bool is_folder = e.is_directory() && !e.is_symlink();
      if (!ours.contains(is_folder ? name + "/" : name)) in_the_way.push_back(name);
    }
  } catch (const fs::filesystem_error& e) {
    throw io_error("cannot look into the folder", target_, e.code().value());
  }
  if (in_the_way.empty()) return;
  std::ranges::sort(in_the_way);
  std::string list;
  for (std::size_t i = 0; i < std::min(in_the_way.size(), kMostNamed); ++i)
    list += (i == 0 ? "" : ", ") + wtool::quoted(in_the_way[i]);
  if (in_the_way.size() > kMostNamed)
    list += fmt::format(" and {} more", in_the_way.size() - kMostNamed);
  throw Error(Fault::Usage,
              fmt::format("is not replaced, because it holds what would be lost: {}", list))
      .in(target_)
      .hint("move that away, or write to another folder");
}

void OutputSet::check_space(std::uint64_t bytes) const {
  const char* tmp = std::getenv("TMPDIR");
  const fs::path folder =
      kind_ == Kind::Stdout ? fs::path(tmp && *tmp ? tmp : "/tmp") : folder_of(fs::path(final_));
  const auto free = free_bytes(folder);
  if (free && *free < bytes)
    throw Error(Fault::Io, fmt::format("needs {} bytes but only {} are free in {}", bytes, *free,
                                       wtool::quoted(folder.native())))
        .in(kind_ == Kind::Stdout ? "-" : target_);
}

std::size_t OutputSet::create(const std::string& name, std::optional<std::uint64_t> bytes) {
  if (kind_ != Kind::Folder && !files_.empty())
    throw Error(Fault::Internal, "a single output takes one file").in(target_);
  File file;
  file.name = name;
  if (kind_ == Kind::Stdout) {
    file.fd = open_unnamed();
  } else {
    if (kind_ == Kind::Folder) check_name(name);
    file.path = fs::path(staging_) / (kind_ == Kind::Folder ? name : "output");
    std::error_code code;
    fs::create_directories(fs::path(file.path).parent_path(), code);
    file.fd = code ? -1 : open_new(file.path);
    if (file.fd < 0)
      throw io_error(fmt::format("cannot create {}", wtool::quoted(name)), target_,
                     code ? code.value() : errno);
  }
  File& kept = files_.emplace_back(std::move(file));
  if (!bytes || *bytes == 0) return files_.size() - 1;
  reserve(kept, *bytes);
  kept.end = *bytes;
  kept.arrived = std::make_unique<std::atomic<std::uint32_t>[]>(ceil_div(*bytes, kStretch));
  return files_.size() - 1;
}

void OutputSet::reserve(const File& file, std::uint64_t bytes) const {
  const auto refuse = [&](int code) {
    const fs::path folder = kind_ == Kind::Stdout ? fs::path("/tmp") : folder_of(final_);
    return io_error(and_free(fmt::format("cannot take {} bytes", bytes), folder, code), target_,
                    code);
  };
  if (bytes > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) throw refuse(EFBIG);
  const auto size = static_cast<off_t>(bytes);
  // Not posix_fallocate(): where the file system can't reserve, it would write a byte per block.
  int code = 0;
  do code = ::fallocate(file.fd, 0, 0, size) == 0 ? 0 : errno;
  while (code == EINTR);
  if (code == 0) return;
  if (code != EOPNOTSUPP && code != ENOSYS && code != EINVAL) throw refuse(code);
  check_space(bytes);
  if (::ftruncate(file.fd, size) != 0) throw refuse(errno);
}

void OutputSet::check_within(const File& file, std::uint64_t offset, std::uint64_t bytes) const {
  const auto end = checked_add(offset, bytes);
  if (file.arrived && (!end || *end > file.end))
    throw Error(Fault::Internal,
                fmt::format("{} bytes at {} do not fit into a file of {}", bytes, offset, file.end))
        .in(target_);
}

void OutputSet::write_at(std::size_t file, std::uint64_t offset, Bytes bytes) {
  File& f = files_[file];
  const std::uint64_t first = offset, all = bytes.size();
  check_within(f, offset, all);
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(f.fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int code = errno;
      throw io_error(and_free(fmt::format("cannot write {} bytes at {}", bytes.size(), offset),
                              staging_, code),
                     target_, code);
    }
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  count_arrived(f, first, all);
}

void OutputSet::copy_to(std::size_t file, std::uint64_t offset, const Extent& from) {
  File& f = files_[file];
  check_within(f, offset, from.bytes);
  auto in = static_cast<off_t>(from.offset), out = static_cast<off_t>(offset);
  std::uint64_t left = from.bytes;
  while (left > 0 && from.source->descriptor() >= 0) {
    const ssize_t n =
        ::copy_file_range(from.source->descriptor(), &in, f.fd, &out,
                          static_cast<std::size_t>(std::min<std::uint64_t>(left, kStretch)), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      break;  // other file system, old kernel, full disk, end of file: what follows does
              // it or says it
    left -= static_cast<std::uint64_t>(n);
  }
  count_arrived(f, offset, from.bytes - left);
  Buffer piece;
  for (std::uint64_t done = from.bytes - left; done < from.bytes; done += piece.size()) {
    piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(from.bytes - done, kPiece)));
    try {
      from.source->read(from.offset + done, piece);
    } catch (Error& e) {  // it was long enough when the plan was made
      if (e.fault() == Fault::BadFile) throw Error(Fault::Io, e.text()).in(e.where());
      throw;
    }
    write_at(file, offset + done, piece);
  }
}

// Starts the writing back of stretches that are (nearly) all there; waits for nothing. What goes
// wrong here shows in fsync.
void OutputSet::count_arrived(File& file, std::uint64_t offset,
                              std::uint64_t bytes) const noexcept {
  if (!file.arrived || kind_ == Kind::Stdout) return;
  for (const std::uint64_t end = offset + bytes; offset < end;) {
    const std::uint64_t stretch = offset / kStretch, next = std::min(end, (stretch + 1) * kStretch);
    const auto n = static_cast<std::uint32_t>(next - offset);
    const std::uint32_t before = file.arrived[stretch].fetch_add(n, std::memory_order_relaxed);
    if (before < kEnough && before + n >= kEnough)
      ::sync_file_range(file.fd, static_cast<off_t>(stretch * kStretch),
                        static_cast<off_t>(kStretch), SYNC_FILE_RANGE_WRITE);
    offset = next;
  }
}

void OutputSet::append(std::size_t file, Bytes bytes) {
  File& f = files_[file];
  write_at(file, f.end, bytes);
  f.end += bytes.size();
  if (kind_ == Kind::Stdout || f.end - f.flushed < kStretch) return;
  ::sync_file_range(f.fd, static_cast<off_t>(f.flushed), static_cast<off_t>(f.end - f.flushed),
                    SYNC_FILE_RANGE_WRITE);
  f.flushed = f.end;
}

void OutputSet::commit() {
  if (kind_ == Kind::Stdout) return send();
  if (kind_ == Kind::File && files_.size() != 1)
    throw Error(Fault::Internal, fmt::format("{} files for one name", files_.size())).in(target_);
  std::vector<std::string> names;
  for (const File& f : files_) names.push_back(f.name);
  check_replaceable(names);
  keep_modes();
  flush_files();
  put_in_place();
  flush_folder(folder_of(final_));
}

// What replaces a file has its mode; the same for a folder and the files in it.
void OutputSet::keep_modes() const {
  if (!replaces_) return;
  struct stat s {};
  const auto is = [&](const fs::path& path) {
    return ::lstat(path.c_str(), &s) == 0 && !S_ISLNK(s.st_mode);
  };
  for (const File& f : files_)
    if (is(kind_ == Kind::File ? fs::path(final_) : fs::path(final_) / f.name))
      if (::fchmod(f.fd, s.st_mode & 0777) != 0)
        throw io_error("cannot set the mode", target_, errno);
  if (kind_ == Kind::Folder && is(final_) && ::chmod(staging_.c_str(), s.st_mode & 0777) != 0)
    throw io_error("cannot set the mode", target_, errno);
}

// Several at a time: the file system joins their journal entries.
void OutputSet::flush_files() const {
  std::atomic<std::size_t> next{0};
  std::atomic<int> failed{0};
  const auto work = [&] {
    for (std::size_t i = 0; (i = next.fetch_add(1)) < files_.size();)
      if (flush(files_[i].fd) != 0) failed = errno;
  };
  {
    std::vector<std::jthread> others;
    try {
      for (unsigned i = 1; i < kFlushers && i < files_.size(); ++i) others.emplace_back(work);
    } catch (const std::system_error&) {
      // A limit on threads: those there are do it.
    }
    work();
  }
  if (failed != 0) throw io_error("cannot flush to the disk", target_, failed);
  if (kind_ != Kind::Folder) return;
  std::unordered_set<std::string> folders;
  for (const File& f : files_) folders.insert(fs::path(f.path).parent_path().native());
  folders.insert(staging_);
  for (const std::string& f : folders) flush_folder(f);
}

void OutputSet::put_in_place() {
  const bool is_folder = kind_ == Kind::Folder;
  const std::string& from = is_folder ? staging_ : files_[0].path;
  int result = 0;
  if (!replaces_)
    result = rename_new(from.c_str(), final_.c_str(), is_folder);
  else if (is_folder)
    result = swap_names(from, final_);
  else
    result = ::rename(from.c_str(), final_.c_str());
  if (result != 0) {
    const int code = errno;
    if (code == EEXIST || code == ENOTEMPTY) throw exists(target_);
    throw io_error("cannot give the finished output its name", target_, code);
  }
  if (is_folder && !replaces_) return staging_.clear();  // it is the output now
  std::error_code code;
  const std::string left = std::exchange(staging_, {});
  fs::remove_all(left, code);
  if (code)
    throw io_error(fmt::format("is in place, but {} cannot be removed", wtool::quoted(left)),
                   target_, code.value());
}

void OutputSet::send() const {
  Buffer piece(kPiece);
  for (const File& f : files_) {
    for (std::uint64_t at = 0; at < f.end;) {
      const std::uint64_t want = std::min<std::uint64_t>(piece.size(), f.end - at);
      const ssize_t n =
          ::pread(f.fd, piece.data(), static_cast<std::size_t>(want), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw io_error("cannot read the temporary file", "-", n < 0 ? errno : EIO);
      write_all(STDOUT_FILENO, Bytes(piece).first(static_cast<std::size_t>(n)));
      at += static_cast<std::uint64_t>(n);
    }
  }
}

std::uint64_t OutputSet::total_bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const File& f : files_) sum += f.end;
  return sum;
}

}  // namespace wtool
