#include "cli/common.h"

namespace wtool {
namespace {

Action bind(CLI::App&) {
  return [](const Context&) -> ExitCode {
    throw Error(Fault::Unsupported, "'convert' is not built in yet");
  };
}

}  // namespace

extern const Command kConvert;
const Command kConvert{"convert", "change the container, dtype, names, shards or metadata", bind};

}  // namespace wtool
