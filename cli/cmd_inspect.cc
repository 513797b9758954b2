#include "cli/common.h"

namespace wtool {
namespace {

Action bind(CLI::App&) {
  return [](const Context&) -> ExitCode {
    throw Error(Fault::Unsupported, "'inspect' is not built in yet");
  };
}

}  // namespace

extern const Command kInspect;
const Command kInspect{"inspect", "what is in it? summary, tree by layer, tensors, metadata", bind};

}  // namespace wtool
