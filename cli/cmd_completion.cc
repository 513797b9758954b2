#include "cli/common.h"

namespace wtool {
namespace {

Action bind(CLI::App&) {
  return [](const Context&) -> ExitCode {
    throw Error(Fault::Unsupported, "'completion' is not built in yet");
  };
}

}  // namespace

extern const Command kCompletion;
const Command kCompletion{"completion", "completion for bash, zsh or fish", bind};

}  // namespace wtool
