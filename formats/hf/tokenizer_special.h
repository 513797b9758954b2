#pragma once
// Tokens with a part to play (beginning of text, padding, …) and whether they are put around a
// text.
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "formats/hf/tokenizer_config.h"
#include "formats/hf/tokenizer_json.h"
#include "formats/hf/tokenizer_table.h"
#include "lib/model/metadata.h"

namespace wtool {

struct SpecialSources {
  const TokenizerJson* json;    // null: the folder has none
  TokenizerConfig config;       // a copy: what the template says is put into it
  const nlohmann::json& model;  // config.json
  const TokenTable& table;
  std::string_view kind;  // of tokenizer.ggml.model
  std::vector<std::string>& notes;
};

// Appends the ids, then the add_* flags, in the order in which the reference finds them.
void add_special_tokens(SpecialSources from, Metadata& meta);

}  // namespace wtool
