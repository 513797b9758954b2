#include "cli/common.h"

namespace wtool {
namespace {

Action bind(CLI::App&) {
  return [](const Context&) -> ExitCode {
    throw Error(Fault::Unsupported, "'show' is not built in yet");
  };
}

}  // namespace

extern const Command kShow;
const Command kShow{"show", "values of a tensor or a slice; to text, .npy, .csv, raw bytes", bind};

}  // namespace wtool
