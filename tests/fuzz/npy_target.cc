#include "formats/registry.h"
#include "tests/fuzz/readers.h"

namespace wtool::fuzz {

extern const Target kNpy;
const Target kNpy{"npy", [](Bytes input) { run_reader(wtool::kNpy, input); }};

}  // namespace wtool::fuzz
