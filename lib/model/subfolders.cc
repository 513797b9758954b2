#include "lib/model/subfolders.h"

#include <filesystem>
#include <system_error>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/model/folder.h"

namespace wtool {

Subfolders below_subfolders(const std::string& folder) {
  struct Todo {
    std::string path;
    unsigned depth;
  };
  std::vector<Todo> todo{{"", 0}};
  Subfolders out;
  std::size_t seen = 0;
  for (std::size_t i = 0; i < todo.size(); ++i) {
    const Todo here = todo[i];
    const std::string path = here.depth == 0 ? folder : joined(folder, here.path);
    std::vector<FolderEntry> entries;
    try {
      entries = list_folder(path);
    } catch (const Error& e) {
      out.skipped.push_back({path, e.text()});
      continue;
    }
    for (const FolderEntry& e : entries) {
      const std::string relative = joined(here.path, e.name);
      std::error_code code;
      if (here.depth > 0 && ++seen > Subfolders::kMostEntries) {
        out.skipped.push_back(
            {path, fmt::format("there are more than {} entries", Subfolders::kMostEntries)});
        return out;
      }
      if (e.kind == FolderEntry::Kind::File && here.depth > 0) out.files.push_back(relative);
      if (e.kind != FolderEntry::Kind::Folder ||
          std::filesystem::is_symlink(joined(folder, relative), code))
        continue;
      if (here.depth == Subfolders::kMostDepth)
        out.skipped.push_back(
            {joined(folder, relative),
             fmt::format("it lies deeper than {} folders", Subfolders::kMostDepth)});
      else
        todo.push_back({relative, here.depth + 1});
    }
  }
  return out;
}

}  // namespace wtool
