#pragma once
// What splits text into words before byte pairs are merged: tokenizer.json spells it out as a list
// of steps and regular expressions, GGUF files name one that llama.cpp has built in.
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/hf/tokenizer_json.h"

namespace wtool {

// The steps of a pre_tokenizer, each in a short form: "bytes" (byte-level alphabet), "words" (the
// split that comes with it), "digits", "split REGEX", … Flags that change no split are left out.
std::vector<std::string> pre_tokenizer_steps(const nlohmann::json& pre_tokenizer);

// The name for tokenizer.ggml.pre. Throws Unsupported with the steps if llama.cpp has none like it.
// `clean_up`: clean_up_tokenization_spaces of tokenizer_config.json. `notes` gets what differs.
std::string pre_tokenizer_name(const TokenizerJson& json, std::optional<bool> clean_up,
                               std::vector<std::string>& notes);

// What a name stands for: the short forms of its steps, but for "bytes". "" fills the table up.
struct PreTokenizerSteps {
  bool ignore_merges = false;  // a word that is a token is taken whole
  std::span<const std::string_view> steps;
};
std::optional<PreTokenizerSteps> pre_tokenizer_steps_of(std::string_view name) noexcept;

// For tokenizers in older files, which do not spell it out: by tokenizer_class. Empty: unknown.
std::string_view pre_tokenizer_of_class(std::string_view tokenizer_class) noexcept;

// True if llama.cpp puts the beginning-of-text token first for it unless told otherwise.
bool pre_tokenizer_adds_bos(std::string_view name) noexcept;

}  // namespace wtool
