#include "formats/registry.h"
#include "tests/fuzz/readers.h"

namespace wtool::fuzz {

extern const Target kGguf;
const Target kGguf{"gguf", [](Bytes input) { run_reader(wtool::kGguf, input); }, mutate_gguf};

}  // namespace wtool::fuzz
