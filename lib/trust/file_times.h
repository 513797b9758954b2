#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace wtool {

// What the file system says of a file or folder without a look inside. Times are in nanoseconds
// since 1970.
struct FileState {
  enum class Kind : std::uint8_t { File, Folder, Other };  // a link is Other
  Kind kind = Kind::Other;
  std::uint64_t device = 0, inode = 0, bytes = 0;
  std::int64_t modified = 0;  // its content; anybody may set it
  std::int64_t changed = 0;   // its content, name, mode or owner; only the system sets it
  std::optional<std::int64_t> born = {};

  // The same file with the same content, as far as can be told.
  bool same_as(const FileState& other) const noexcept {
    return kind == other.kind && device == other.device && inode == other.inode &&
           bytes == other.bytes && modified == other.modified;
  }
};
std::optional<FileState> state_of(const std::string& path);  // nothing if it is not there

// True of file systems that are known to record every change with the system's own clock. FAT and
// what stands behind FUSE or SMB do not.
bool records_changes(const std::string& path);

std::int64_t now_ns();

// When the files that a signature lists were read, at the earliest: before it was written, and
// before it was made at all, which wtool does first.
std::int64_t begun(const FileState& signature) noexcept;

// File systems round their times, by up to two seconds.
inline constexpr std::int64_t kTimeMargin = 2'000'000'000;

// Why a file may have other bytes than when a signature was made; nothing if it has not changed.
std::optional<std::string_view> why_changed(const FileState& file, const FileState& signature);
// True if another folder may have taken this one's place since. A change of what is in it moves
// both of its times, a move only one.
bool may_have_moved(const FileState& folder, const FileState& signature) noexcept;

}  // namespace wtool
