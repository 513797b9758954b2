#pragma once
#include <string>
#include <string_view>

namespace wtool::fuzz {

// A folder in memory for targets that need files. It is this process's, is empty at the beginning
// and at the end of each use, and goes with the process.
class WorkFolder {
 public:
  explicit WorkFolder(std::string_view name);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  const std::string& path() const noexcept { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }
  void write(std::string_view name, std::string_view content) const;

 private:
  std::string path_;
};

}  // namespace wtool::fuzz
