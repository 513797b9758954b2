#include "tests/fuzz/work_folder.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <unistd.h>

#include "tests/fuzz/target.h"

namespace fs = std::filesystem;

namespace wtool::fuzz {
namespace {

struct Root {
  fs::path path;
  Root() {
    std::error_code code;
    const fs::path memory = "/dev/shm";
    std::string name = ((::access(memory.c_str(), W_OK) == 0 ? memory : fs::temp_directory_path()) /
                        "wtool-fuzz-XXXXXX")
                           .native();
    expect(::mkdtemp(name.data()) != nullptr, "no folder to work in");
    path = name;
  }
  ~Root() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

void clear(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path(), ignored);
}

}  // namespace

WorkFolder::WorkFolder(std::string_view name) {
  static const Root root;
  path_ = (root.path / name).native();
  fs::create_directory(path_);
  clear(path_);
}

WorkFolder::~WorkFolder() {
  clear(path_);
}

void WorkFolder::write(std::string_view name, std::string_view content) const {
  std::ofstream out(*this / name, std::ios::binary);
  out << content;
  out.close();
  expect(out.good(), "cannot write the input");
}

}  // namespace wtool::fuzz
