#include "cli/common.h"

namespace wtool {
namespace {

Action bind(CLI::App&) {
  return [](const Context&) -> ExitCode {
    throw Error(Fault::Unsupported, "'quantize' is not built in yet");
  };
}

}  // namespace

extern const Command kQuantize;
const Command kQuantize{"quantize", "fewer bits, with proof of what was lost", bind};

}  // namespace wtool
