#pragma once
#include <string>
#include <vector>

#include "cli/command.h"

namespace wtool {

struct LineageOptions {
  bool lineage = false;
  std::vector<std::string> folders;  // --parents
};
// For the summary: "by quantize, wtool 0.1.0 from m.safetensors (905deb0cdb0e…); …"; "" if nothing
// is recorded.
std::string lineage_line(const Metadata& meta);
void add_lineage_options(CLI::App& app, LineageOptions& options);

// What `model` was made from, and whether what is at hand is that.
ExitCode inspect_lineage(const LineageOptions& options, const Model& model, const Context& context);

}  // namespace wtool
