#pragma once
#include <string>

#include <CLI/CLI.hpp>

namespace wtool {

// The options given that decide an output's bytes, as a compact JSON object with sorted keys: what
// the lineage of the output records. Of files that options name, digest and base name are recorded,
// never a path. `format` is what is written. Throws Io if such a file cannot be read.
std::string recipe_of(const CLI::App& app, std::string_view format);

}  // namespace wtool
