#pragma once
// What a Hugging Face folder says of its tokenizer, as the tokenizer.* keys of a GGUF file. Nothing
// is tokenized: tables are copied, and what splits words is recognised and named.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "lib/model/metadata.h"
#include "lib/model/model.h"

namespace wtool {

// Which files a model's tokenizer is looked for in, as its architecture says. tokenizer.json says
// itself what it holds, so where the first choice is missing, what is there is taken.
enum class TokenizerPath : std::uint8_t {
  Bpe,                   // tokenizer.json, or vocab.json with merges.txt
  SentencePieceElseBpe,  // tokenizer.model, else as Bpe
  SentencePiece,         // likewise: an architecture that came with nothing else
  WordPiece,             // tokenizer.json, or vocab.txt
};
struct TokenizerWish {
  TokenizerPath path;
  std::string_view architecture;  // GGUF's: "llama", "gemma2": what is special to it
  std::string_view hf_class;      // "LlamaForCausalLM"
  std::uint64_t vocabulary;  // entries of the table: config.json's vocab_size; 0: as many as needed
  std::string pre;           // of --pre; empty: by the pre_tokenizer of tokenizer.json
};

// Appends the tokenizer.* keys to `meta`, in the reference converter's order. `config` is
// config.json with text_config lifted. `notes` gets what people should know. Throws BadFile (a file
// is damaged, or two contradict each other), Unsupported (an unknown pre-tokenizer or kind), Usage
// (there is no tokenizer).
void add_tokenizer(const Model& model, const nlohmann::json& config, const TokenizerWish& wish,
                   Metadata& meta, std::vector<std::string>& notes);

// The names that llama.cpp v0.5.0 takes for tokenizer.ggml.pre.
std::span<const std::string_view> known_pre_tokenizers() noexcept;

}  // namespace wtool
