#pragma once
#include "cli/command.h"

namespace wtool {

// One run of wtool but for what belongs to a process: parses, acts, prints the one error line.
// main() adds the signals, and dies by the one that stopped it.
ExitCode run_wtool(int argc, const char* const* argv);

}  // namespace wtool
