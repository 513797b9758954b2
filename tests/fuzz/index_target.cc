// A folder: its index, and three shards.
#include <fmt/format.h>

#include "tests/fuzz/readers.h"

namespace wtool::fuzz {
namespace {

void run(Bytes input) {
  const std::vector<std::string> parts = split_parts(as_text(input), 4);
  std::vector<FolderFile> files;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].empty()) continue;
    if (i == 0)
      files.push_back({"model.safetensors.index.json", parts[0]});
    else if (parts[i].starts_with("GGUF"))
      files.push_back({fmt::format("model-{:05}-of-00003.gguf", i), parts[i]});
    else
      files.push_back({fmt::format("model-{:05}-of-00003.safetensors", i), parts[i]});
  }
  run_folder(files);
}

}  // namespace

extern const Target kIndex;
const Target kIndex{"index", run, mutate_folder};

}  // namespace wtool::fuzz
