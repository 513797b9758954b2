#include "formats/registry.h"
#include "tests/fuzz/readers.h"

namespace wtool::fuzz {

extern const Target kSafetensors;
const Target kSafetensors{
    "safetensors", [](Bytes input) { run_reader(wtool::kSafetensors, input); }, mutate_safetensors};

}  // namespace wtool::fuzz
