#pragma once
// The tables of tokens, by the kind of tokenizer.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/hf/sentencepiece.h"
#include "formats/hf/tokenizer_config.h"
#include "formats/hf/tokenizer_json.h"
#include "formats/hf/tokenizer_table.h"

namespace wtool {

struct BuildSources {
  const TokenizerConfig& config;
  std::span<const AddedToken> added_file;  // of added_tokens.json
  std::uint64_t vocabulary;                // entries; 0: as many as there are
  bool as_said;  // Phi-3: added tokens are what files say, not what they look like
  std::vector<std::string>& notes;
};

// Byte-level BPE, and WordPiece before its words are marked.
TokenTable table_of_words(const TokenizerJson& json, const BuildSources& from);
// tokenizer.model. `json`: for tokens that were added later and nothing else tells; may be null.
TokenTable table_of_pieces(const SentencePieceModel& model, std::string_view file,
                           const TokenizerJson* json, const BuildSources& from);
// What was such a model once (BPE with bytes to fall back on): llama.cpp merges by score, highest
// first, so a token's score is the negative rank of the first merge that makes it.
TokenTable table_of_ranks(const TokenizerJson& json, const BuildSources& from);
TokenTable table_of_unigrams(const TokenizerJson& json, const BuildSources& from);
// sentencepiece.bpe.model of XLM-RoBERTa: its own first four tokens, then the pieces after theirs,
// and a mask at the end.
TokenTable table_of_fairseq(const SentencePieceModel& model, std::string_view file,
                            const BuildSources& from);

}  // namespace wtool
