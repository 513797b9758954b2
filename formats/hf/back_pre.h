#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace wtool {

// How words are split before merges at a name for tokenizer.ggml.pre, as tokenizer.json says it.
struct BackPre {
  bool ignore_merges = false;  // a word of the vocabulary is a token
  bool adds_bos = false;       // unless the metadata says otherwise
  bool cleans_spaces = true;   // before punctuation, of decoded text
  bool nfc = false;            // tokenizer.json of its models normalises to NFC
  std::string pre_tokenizer;   // the value of this member
};

std::optional<BackPre> back_pre(std::string_view name,
                                bool add_prefix_space);  // nullopt: not known

}  // namespace wtool
