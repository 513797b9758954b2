#pragma once
#include <span>
#include <string>
#include <string_view>

namespace wtool {

// How words are split before merges, by tokenizer.ggml.pre: what llama.cpp does at that name, as
// tokenizer.json says it.
struct BackPre {
  std::span<const std::string_view> names;
  std::span<const std::string_view> splits;  // regular expressions, one after the other
  bool digits = false;                       // each digit by itself
  bool byte_level_regex = false;             // GPT-2's own expression, which ByteLevel knows
  bool ignore_merges = false;                // a word of the vocabulary is a token
  bool forces_bos = false;                   // unless the metadata says otherwise
  bool cleans_spaces = true;                 // before punctuation, of decoded text
  bool nfc = false;                          // tokenizer.json of its models normalises to NFC
};

const BackPre* back_pre(std::string_view name) noexcept;  // null: not known

// The value of "pre_tokenizer".
std::string pre_tokenizer_json(const BackPre& pre, bool add_prefix_space);

}  // namespace wtool
