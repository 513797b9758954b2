#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/check.h"

namespace wtool {

// What --salvage wrote.
struct Salvaged {
  std::string path;
  std::uint64_t tensors = 0, bytes = 0;  // of the output
  std::vector<std::string> left_out;     // besides what was lost: "tensor 'x': why"
};

// Before any work: where the result would go. Throws Usage: it exists, is the input or in its
// folder, is another format, or standard output.
std::string check_salvage(const Model& model, const CheckOptions& options, const Context& context);

// Writes what `model`, read from a damaged input, still holds as a sound file or folder in its own
// format; the input is not touched. Tensors are copied as they are stored. `damaged`: entries of
// the catalog that cannot be read.
Salvaged salvage(std::shared_ptr<const Model> model, const Diagnostics& faults,
                 const std::vector<bool>& damaged, const CheckOptions& options,
                 const Context& context);

}  // namespace wtool
