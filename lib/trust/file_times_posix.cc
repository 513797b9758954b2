#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <limits>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "lib/base/error.h"
#include "lib/trust/file_times.h"

namespace wtool {
namespace {

// Seconds beyond 1677 … 2262 become the nearest time there is.
std::int64_t ns_of(const struct statx_timestamp& t) noexcept {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / 1'000'000'000 - 1;
  return std::clamp<std::int64_t>(t.tv_sec, -kMost, kMost) * 1'000'000'000 + t.tv_nsec;
}

FileState::Kind kind_of(unsigned mode) noexcept {
  if (S_ISREG(mode)) return FileState::Kind::File;
  return S_ISDIR(mode) ? FileState::Kind::Folder : FileState::Kind::Other;
}

}  // namespace

std::optional<FileState> state_of(const std::string& path) {
  struct statx s = {};
  // Of a file on a server: as it is there, not as we remember it.
  if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC,
              STATX_BASIC_STATS | STATX_BTIME, &s) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    throw Error(Fault::Io,
                fmt::format("cannot be looked at: {}", std::generic_category().message(errno)))
        .in(path);
  }
  FileState out;
  out.kind = kind_of(s.stx_mode);
  out.device = makedev(s.stx_dev_major, s.stx_dev_minor);
  out.inode = s.stx_ino;
  out.bytes = s.stx_size;
  out.modified = ns_of(s.stx_mtime);
  out.changed = ns_of(s.stx_ctime);
  if ((s.stx_mask & STATX_BTIME) != 0) out.born = ns_of(s.stx_btime);
  return out;
}

bool records_changes(const std::string& path) {
  // As linux/magic.h and the file systems' own sources have them.
  static constexpr std::array<std::uint32_t, 9> kKnown{0xEF53,      // ext2, ext3, ext4
                                                       0x58465342,  // XFS
                                                       0x9123683E,  // Btrfs
                                                       0xF2F52010,  // F2FS
                                                       0x2FC12FC1,  // ZFS
                                                       0xCA451A4E,  // bcachefs
                                                       0x01021994,  // tmpfs
                                                       0x794C7630,  // overlayfs
                                                       0x6969};     // NFS, whose server keeps them
  struct statfs s = {};
  if (::statfs(path.c_str(), &s) != 0) return false;
  return std::ranges::find(kKnown, static_cast<std::uint32_t>(s.f_type)) != kKnown.end();
}

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace wtool
