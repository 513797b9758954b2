#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace wtool {

// What lies below the subfolders of `folder`: relative paths of files, the upper ones first. Links
// are not followed.
struct Subfolders {
  static constexpr unsigned kMostDepth = 8;
  static constexpr std::size_t kMostEntries = 10'000;
  struct Skipped {
    std::string path, why;
  };
  std::vector<std::string> files;
  std::vector<Skipped> skipped;  // what was not looked into
};
Subfolders below_subfolders(const std::string& folder);

}  // namespace wtool
