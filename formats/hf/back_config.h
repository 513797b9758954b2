#pragma once
#include <string>
#include <vector>

#include "formats/hf/back_files.h"
#include "formats/hf/back_vocabulary.h"

namespace wtool {

// The text of config.json.
std::string back_config(BackKeys& keys, const BackFacts& facts, std::uint64_t vocabulary,
                        const SpecialIds& special, std::vector<std::string>& lost);
// The text of generation_config.json; empty: the metadata has no defaults for sampling.
std::string back_generation_config(BackKeys& keys, const SpecialIds& special,
                                   std::vector<std::string>& lost);

}  // namespace wtool
