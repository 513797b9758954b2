#pragma once
// What a tokenizer does to a text before it splits it, as far as GGUF has keys for it.
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "formats/hf/sentencepiece.h"
#include "formats/hf/tokenizer_json.h"
#include "lib/model/metadata.h"

namespace wtool {

// True if a normalizer or a pre-tokenizer puts a space (U+2581) before a text.
bool begins_with_space(const nlohmann::json& part);

// Case and accents: tokenizer.ggml.normalizer.*
void add_normalizer_flags(const nlohmann::json& normalizer, Metadata& meta);
// What llama.cpp leaves undone of it when it merges bytes. NFC, which most files ask for and most
// texts have, is not worth a word.
void note_normalizer(const TokenizerJson& json, std::vector<std::string>& notes);

struct UnigramHabits {
  bool space_prefix = false, remove_extra_spaces = false;
  Buffer charsmap;  // SentencePiece's compiled table of characters; empty: none
};
UnigramHabits unigram_habits(const TokenizerJson& json);
UnigramHabits unigram_habits(const SentencePieceModel& model, std::string_view file);
MetaArray byte_array(Buffer bytes);

}  // namespace wtool
