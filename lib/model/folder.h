#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wtool {

// What lies directly in a folder, sorted as people count. Links count as what they lead to.
struct FolderEntry {
  enum class Kind : std::uint8_t { File, Folder, Other };  // Other: a device, a dangling link
  std::string name;
  Kind kind;
};
std::vector<FolderEntry> list_folder(const std::string& folder);  // throws Io

// Relative paths below `folder` of the files with one of these suffixes, sorted as people count;
// `others` gets the files below subfolders that have none. Does not follow links to folders.
std::vector<std::string> files_below(const std::string& folder,
                                     const std::vector<std::string_view>& suffixes,
                                     std::vector<std::string>& others);

std::string joined(std::string_view folder, std::string_view name);  // "" and "x": "x"
std::string folder_of(std::string_view path);                        // "" if it is a bare name
std::string file_name_of(std::string_view path);
bool exists(const std::string& path);

// Compressed files stand in for those they are made from: under this suffix more.
inline constexpr std::string_view kCompressedSuffix = ".zst";
std::string_view without_compressed_suffix(std::string_view name) noexcept;
// The path, or that of the compressed file if only that one is there.
std::string present(std::string path);

// True if `name` is a link that leads out of `folder`. A Hugging Face cache keeps each file of
// …/snapshots/REVISION as a link to …/blobs/HASH: its own blobs count as inside.
bool leads_out(const std::string& folder, const std::string& name);

// 'model-00002-of-00005.safetensors' (also '_00002'): the names of all files of the set, in order;
// empty if the name has no such number.
std::vector<std::string> numbered_set(std::string_view file_name);

}  // namespace wtool
