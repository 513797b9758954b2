// A model with the side file that says how it is quantized: the first part is a byte that chooses
// the file's name, the second the file, the third the model.
#include <array>

#include "tests/fuzz/readers.h"

namespace wtool::fuzz {
namespace {

constexpr std::array<std::string_view, 4> kNames{"config.json", "quantize_config.json",
                                                 "quant_config.json", "hf_quant_config.json"};

void run(Bytes input) {
  const std::vector<std::string> parts = split_parts(as_text(input), 3);
  if (parts.size() < 3) return;
  const std::size_t which = parts[0].empty() ? 0 : static_cast<unsigned char>(parts[0][0]) % 4;
  std::vector<FolderFile> files{{"model.safetensors", parts[2]}};
  if (!parts[1].empty()) files.push_back({std::string(kNames[which]), parts[1]});
  run_folder(files);
}

}  // namespace

extern const Target kSchemes;
const Target kSchemes{"schemes", run, mutate_folder};

}  // namespace wtool::fuzz
