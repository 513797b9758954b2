#include "cli/common.h"

namespace wtool {
namespace {

Action bind(CLI::App&) {
  return [](const Context&) -> ExitCode {
    throw Error(Fault::Unsupported, "'verify' is not built in yet");
  };
}

}  // namespace

extern const Command kVerify;
const Command kVerify{"verify", "is it the file I was promised?", bind};

}  // namespace wtool
