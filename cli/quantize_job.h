#pragma once
#include <string>
#include <string_view>

#include "cli/quantize_types.h"
#include "cli/rewrite.h"

namespace wtool {

// What 'quantize' does, and 'convert --type' in the same pass as all it does itself.
struct QuantizeCommand : RewriteOptions {
  TypeOptions types;
  GateOptions gates;
  FindingsOptions findings;
  bool keep = false;
  std::string imatrix;
  bool require_imatrix = false, fallback = false, requantize = false;
};
// `verb`: the command, which names the report's schema.
ExitCode quantize(const QuantizeCommand& options, const Context& context, std::string_view verb);

}  // namespace wtool
