#include "cli/common.h"

namespace wtool {
namespace {

Action bind(CLI::App&) {
  return [](const Context&) -> ExitCode {
    throw Error(Fault::Unsupported, "'digest' is not built in yet");
  };
}

}  // namespace

extern const Command kDigest;
const Command kDigest{"digest", "SHA-256 of files and of tensors", bind};

}  // namespace wtool
