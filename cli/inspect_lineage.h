#pragma once
#include <string>
#include <vector>

#include "cli/command.h"

namespace wtool {

struct LineageOptions {
  bool lineage = false;
  std::vector<std::string> folders;  // --parents
};
void add_lineage_options(CLI::App& app, LineageOptions& options);

// What `model` was made from, and whether what is at hand is that.
ExitCode inspect_lineage(const LineageOptions& options, const Model& model, const Context& context);

}  // namespace wtool
