#pragma once
#include "formats/hf/config.h"
#include "lib/model/metadata.h"

namespace wtool {

inline constexpr std::uint64_t kMaxExperts = 1024;  // llama.cpp v0.5.0, LLAMA_MAX_EXPERTS

// The keys of an architecture from config.json, in the reference's order. `file_type`:
// general.file_type. Throws BadFile naming all that llama.cpp cannot do without.
void add_architecture_keys(const Model& model, const HfConfig& config, std::uint32_t file_type,
                           Metadata& meta);

// Where llama.cpp computes otherwise than config.json says, for people.
std::vector<std::string> differences_to_engine(const HfConfig& config);

// Factors by which Llama 3.1 stretches its rotary embedding, one for each pair of a head; empty
// unless config.json asks for them. The same bits on every machine.
std::vector<float> llama3_rope_factors(const HfConfig& config);
// Phi-3's factors for long and for short contexts, one for each pair; empty if there are none.
std::vector<float> longrope_factors(const HfConfig& config, std::string_view which);

}  // namespace wtool
