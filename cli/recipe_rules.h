#pragma once
#include <string_view>
#include <vector>

#include "cli/quantize_types.h"

namespace wtool {

// The rules of a recipe's text, a line each. Errors name it as options.recipe. Throws Usage.
std::vector<Override> recipe_rules(std::string_view text, const TypeOptions& options,
                                   const Model& model, bool gguf, bool allow_unmatched);

}  // namespace wtool
