#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <limits>
#include <new>
#include <system_error>
#include <thread>
#include <unordered_set>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "lib/base/listing.h"
#include "lib/base/text.h"
#include "lib/engine/files_posix.h"
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

int open_unnamed() {
  const char* folder = std::getenv("TMPDIR");
  if (!folder || !*folder) folder = "/tmp";
  int fd = again([&] { return ::open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); });
  if (fd < 0) {  // a file system without O_TMPFILE
    std::string path;
    fd = again([&] {
      path = std::string(folder) + "/wtool-XXXXXX";
      return ::mkostemp(path.data(), O_CLOEXEC);
    });
    if (fd >= 0) ::unlink(path.c_str());
  }
  if (fd < 0) throw io_error("cannot create a temporary file", folder, errno);
  return fd;
}

// '.NAME.wtool-': what comes before the process id. A long name is cut, so that the whole fits.
std::string staging_prefix(const fs::path& target) {
  constexpr std::size_t kMostName = 255 - std::string_view("..wtool-4194304000").size();
  return fmt::format(".{}.wtool-", target.filename().native().substr(0, kMostName));
}

// Removes what killed runs for the same target left. Whoever works in such a folder holds its lock.
void remove_stale(const fs::path& folder, const std::string& target) {
  const auto items = items_of(folder);
  if (!items) return;
  for (const FolderItem& item : *items) {
    if (!item.is_folder || !OutputSet::is_hidden_folder(item.name, target)) continue;
    const std::string path = folder / item.name;
    const Descriptor lock(open_folder(path));
    if (lock.get() < 0 || again([&] { return ::flock(lock.get(), LOCK_EX | LOCK_NB); }) != 0)
      continue;
    std::error_code best_effort;
    fs::remove_all(path, best_effort);
  }
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

// Throws if there are any in `folder`, which is (or was) the target.
void refuse_strangers(const std::string& folder, std::span<const std::string> names,
                      const std::string& target) {
  const auto found = strangers_in(folder, names);
  if (!found) throw io_error("cannot look into the folder", target, errno);
  if (found->empty()) return;
  throw Error(Fault::Usage, fmt::format("is not replaced, because it holds what would be lost: {}",
                                        first_few_names(*found, kMostNamed)))
      .in(target)
      .hint("move that away, or write to another folder");
}

std::vector<std::string> names_of(const auto& files) {
  std::vector<std::string> out;
  out.reserve(files.size());
  for (const auto& f : files) out.push_back(f.name);
  return out;
}

// A file of ours as it is being written.
class WrittenFile final : public Source {
 public:
  WrittenFile(std::string name, int fd, std::uint64_t size)
      : name_(std::move(name)), fd_(fd), size_(size) {}
  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override { return size_; }
  void read(std::uint64_t offset, MutableBytes out) const override {
    while (!out.empty()) {
      const ssize_t n =
          again([&] { return ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset)); });
      if (n <= 0) throw io_error("cannot read what was written", name_, n < 0 ? errno : EIO);
      offset += static_cast<std::uint64_t>(n);
      out = out.subspan(static_cast<std::size_t>(n));
    }
  }

 private:
  std::string name_;
  int fd_;
  std::uint64_t size_;
};

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
    : target_(std::move(target)),
      kind_(kind),
      existing_(existing),
      unfinished_([](void* self) noexcept { static_cast<OutputSet*>(self)->remove_made(); }, this) {
  if (kind_ == Kind::Stdout) return;
  while (target_.size() > 1 && target_.back() == '/') target_.pop_back();
  settle_target();
  make_staging();
}

OutputSet::~OutputSet() {
  for (const File& f : files_)
    if (f.fd >= 0) ::close(f.fd);
  if (!staging_.empty()) {
    remove_made();
    try {
      std::error_code ignored;
      if (is_there(staging_)) fs::remove_all(staging_, ignored);
    } catch (const std::bad_alloc&) {
      // The next run into the same place removes it.
    }
  }
  if (lock_ >= 0) ::close(lock_);
}

// Removes the files that we made, or such as have their names, and what is empty then. Want of
// memory may be why we clean up, so none is asked for (a directory_iterator takes 32 KiB): the
// paths are cut where they are.
void OutputSet::remove_made() noexcept {
  if (staging_.empty()) return;
  for (File& file : files_) {
    std::string& path = file.path;
    if (path.empty()) continue;
    ::unlink(path.c_str());
    while (path.size() > staging_.size() && path.find('/') != std::string::npos) {
      path.resize(path.rfind('/'));
      if (::rmdir(path.c_str()) != 0) break;
    }
  }
  ::rmdir(staging_.c_str());
}

bool OutputSet::is_hidden_folder(std::string_view name, const std::string& target) {
  const std::string prefix = staging_prefix(target);
  return name.starts_with(prefix) && parse_u64(name.substr(prefix.size()));
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
  remove_stale(folder, final_);
  std::string name = folder / fmt::format("{}{}", staging_prefix(path), ::getpid());
  // Between mkdir and flock another run can take the folder for a stale one: then it is gone, and
  // made again.
  for (int tries = 0; tries < 100; ++tries) {
    if (::mkdir(name.c_str(), kind_ == Kind::Folder ? 0777 : 0700) != 0) {
      Error e = io_error("cannot write here", target_, errno);
      if (errno == ENOENT)
        e.hint(fmt::format("there is no folder {}", wtool::quoted(folder.native())));
      if (errno == EEXIST) e.hint("another output of this name is being written");
      throw e;
    }
    if (lock_staging(name)) {
      staging_ = std::move(name);  // moved: nothing may fail between the folder and its owner
      close_to_others();
      return;
    }
    ::close(std::exchange(lock_, -1));
  }
  throw Error(Fault::Io, "cannot keep a temporary folder beside it").in(target_);
}

// False if another run has removed it meanwhile. Without the lock another run would remove it while
// we write, so what prevents locking is an error.
bool OutputSet::lock_staging(const std::string& name) {
  lock_ = open_folder(name);
  if (lock_ < 0 && errno == ENOENT) return false;
  if (lock_ >= 0) {
    if (again([&] { return ::flock(lock_, LOCK_EX); }) == 0) return same_file(lock_, name);
    // A file system that has no locks. Then nobody can take it for stale either.
    if (errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) return true;
  }
  const int code = errno;
  ::rmdir(name.c_str());
  if (lock_ >= 0) ::close(std::exchange(lock_, -1));
  throw io_error("cannot lock the temporary folder beside it", target_, code);
}

// What is replaced may be readable by fewer than the umask would let in. A folder that becomes the
// output gets the mode it was made with back in keep_modes().
void OutputSet::close_to_others() {
  struct stat s {};
  if (kind_ != Kind::Folder || ::fstat(lock_, &s) != 0) return;
  if (::fchmod(lock_, (s.st_mode & 07000) | 0700) == 0) {
    mode_ = s.st_mode & 07777;
    return;
  }
  const int code = errno;
  // A file system that knows no modes has nothing to keep from anybody.
  if (code == EPERM || code == EOPNOTSUPP || code == ENOSYS || code == EINVAL) return;
  ::rmdir(staging_.c_str());
  ::close(std::exchange(lock_, -1));
  throw io_error("cannot set the mode of the temporary folder beside it", target_, code);
}

void OutputSet::check_replaceable(std::span<const std::string> names) const {
  if (kind_ != Kind::Folder || !replaces_) return;
  std::vector<std::string> all(names.begin(), names.end());
  all.insert(all.end(), expected_.begin(), expected_.end());
  refuse_strangers(final_, all, target_);
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
  File& file = files_.emplace_back();  // first: what is made from here on is known, and removed
  file.name = name;
  if (kind_ == Kind::Stdout) {
    file.fd = open_unnamed();
  } else {
    if (kind_ == Kind::Folder) check_name(name);
    file.path = fs::path(staging_) / (kind_ == Kind::Folder ? name : "output");
    file.fd = make_folders(file.path, staging_.size()) ? open_new(file.path) : -1;
    if (file.fd < 0)
      throw io_error(fmt::format("cannot create {}", wtool::quoted(name)), target_, errno);
  }
  if (!bytes || *bytes == 0) return files_.size() - 1;
  reserve(file, *bytes);
  file.end = *bytes;
  file.arrived = std::make_unique<std::atomic<std::uint32_t>[]>(ceil_div(*bytes, kStretch));
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
  if (again([&] { return ::fallocate(file.fd, 0, 0, size); }) == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) throw refuse(errno);
  check_space(bytes);
  if (again([&] { return ::ftruncate(file.fd, size); }) != 0) throw refuse(errno);
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
    } catch (const Error& e) {  // it was long enough when the plan was made
      from.source->check_unchanged();
      if (e.fault() == Fault::BadFile && from.offset + from.bytes > from.source->size())
        throw Error(Fault::Io, e.text()).in(e.where());
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

SourcePtr OutputSet::written(std::size_t file) const {
  const File& f = files_[file];
  return std::make_shared<WrittenFile>(f.name, f.fd, f.end);
}

void OutputSet::commit() {
  if (kind_ == Kind::Stdout) return send();
  if (kind_ == Kind::File && files_.size() != 1)
    throw Error(Fault::Internal, fmt::format("{} files for one name", files_.size())).in(target_);
  const std::vector<std::string> names = names_of(files_);
  expected_.clear();
  check_replaceable(names);
  keep_modes();
  flush_files();
  put_in_place();
  // What was replaced goes only when the new name is safe: else a power failure could cost both.
  const int code = flush_folder(folder_of(final_));
  if (code != 0)
    throw io_error("is in place, but its folder cannot be flushed to the disk", target_, code);
  remove_staging();
}

// What replaces a file has its mode; the same for a folder and the files in it.
void OutputSet::keep_modes() const {
  struct stat s {};
  const auto is = [&](const fs::path& path) {
    return ::lstat(path.c_str(), &s) == 0 && !S_ISLNK(s.st_mode);
  };
  const auto check = [&](int result) {
    if (result != 0) throw io_error("cannot set the mode", target_, errno);
  };
  if (replaces_)
    for (const File& f : files_)
      if (is(kind_ == Kind::File ? fs::path(final_) : fs::path(final_) / f.name))
        check(::fchmod(f.fd, s.st_mode & 0777));
  if (kind_ != Kind::Folder) return;
  if (replaces_ && is(final_))
    check(::chmod(staging_.c_str(), s.st_mode & 0777));
  else if (mode_)
    check(::fchmod(lock_, *mode_));
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
  for (const std::string& f : folders)
    if (const int code = flush_folder(f); code != 0)
      throw io_error("cannot flush its folder to the disk", target_, code);
}

void OutputSet::put_in_place() {
  // Another may have cleaned up, or moved things, where we write.
  const auto gone = [&](const File& f) { return !same_file(f.fd, f.path); };
  if (!same_file(lock_, staging_) || std::ranges::any_of(files_, gone))
    throw Error(Fault::Io, "what was written beside it was removed or exchanged by another")
        .in(target_);
  const bool is_folder = kind_ == Kind::Folder;
  // What is to be replaced gets the name of a temporary folder: locked, no other run removes it.
  Descriptor replaced(is_folder && replaces_ ? open_folder(final_) : -1);
  if (is_folder && replaces_ && replaced.get() < 0)
    throw io_error("cannot open the folder to be replaced", target_, errno);
  if (replaced.get() >= 0) again([&] { return ::flock(replaced.get(), LOCK_EX | LOCK_NB); });
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
  if (!is_folder) return;
  if (!replaces_) return staging_.clear();  // it is the output now
  ::close(std::exchange(lock_, replaced.release()));
  // Since we looked, another may have put something into the folder: flushing takes its time.
  const std::vector<std::string> names = names_of(files_);
  try {
    refuse_strangers(staging_, names, target_);
  } catch (...) {
    if (swap_names(staging_, final_) != 0) staging_.clear();  // better left over than lost
    throw;
  }
}

void OutputSet::remove_staging() {
  if (staging_.empty()) return;
  remove_made();
  const std::string left = std::exchange(staging_, {});
  std::error_code code;
  if (is_there(left)) fs::remove_all(left, code);
  if (code && is_there(left))
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
