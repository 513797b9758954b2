// Feeds a target what is kept of its corpus: as an ordinary test, in every preset.
//   fuzz_replay TARGET FILE-OR-FOLDER…      a *.pack holds many inputs (tests/fuzz/corpus.py)
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <vector>

#include "tests/fuzz/target.h"

namespace fs = std::filesystem;

namespace {

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<fs::path> files_of(int argc, char** argv) {
  std::vector<fs::path> out;
  for (int i = 2; i < argc; ++i) {
    if (!fs::is_directory(argv[i])) {
      out.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : fs::directory_iterator(argv[i])) out.push_back(entry.path());
  }
  std::ranges::sort(out);
  return out;
}

// The name is what one sees last before a crash.
void run(const wtool::fuzz::Target& target, const std::string& name, const std::string& input) {
  std::printf("%s\n", name.c_str());
  std::fflush(stdout);
  target.run(wtool::as_bytes(input));
}

}  // namespace

int main(int argc, char** argv) {
  const wtool::fuzz::Target* target = argc > 2 ? wtool::fuzz::find_target(argv[1]) : nullptr;
  if (!target) {
    std::fputs("usage: fuzz_replay TARGET FILE-OR-FOLDER...\n", stderr);
    return 2;
  }
  std::size_t count = 0;
  for (const fs::path& path : files_of(argc, argv)) {
    const std::string name = path.filename(), bytes = content(path);
    if (path.extension() != ".pack") {
      run(*target, name, bytes);
      ++count;
      continue;
    }
    const auto inputs = wtool::fuzz::split_parts(bytes, bytes.size() + 1);
    for (std::size_t i = 0; i < inputs.size(); ++i)
      run(*target, name + ":" + std::to_string(i), inputs[i]);
    count += inputs.size();
  }
  if (count == 0) std::fputs("no inputs there\n", stderr);
  return count == 0 ? 1 : 0;
}
