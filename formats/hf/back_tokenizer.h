#pragma once
#include <string>
#include <vector>

#include "formats/hf/back_files.h"
#include "formats/hf/back_pre.h"
#include "formats/hf/back_vocabulary.h"
#include "lib/base/bytes.h"

namespace wtool {

// What the files of a tokenizer are made from.
struct BackTokenizer {
  const BackVocabulary& tokens;
  const SpecialIds& special;
  std::string_view model_type;  // of config.json
  // tokenizer.ggml.add_*; nullopt: the metadata does not say
  std::optional<bool> add_bos, add_eos, add_sep, add_space_prefix;
};

// tokenizer.json for byte-level merges ("gpt2").
std::string back_tokenizer_json(const BackTokenizer& from, const BackPre& pre,
                                const MetaArray& merges, std::vector<std::string>& lost);
// tokenizer.model for SentencePiece ("llama"); empty: SentencePiece would refuse it, and `lost`
// says why.
Buffer back_tokenizer_model(const BackTokenizer& from, bool remove_extra_whitespaces,
                            std::vector<std::string>& lost);
// The one piece that stands for what no other does, which SentencePiece insists on. In GGUF it may
// be a control token like others.
std::optional<std::uint32_t> sentencepiece_unknown(const BackTokenizer& from);
// A user-defined token's text as SentencePiece has it: U+2581 where GGUF has a space.
std::string sentencepiece_text(const BackVocabulary& tokens, std::size_t id);

// The tokens with the same text as another that keeps it, in ascending order: of two, an added one,
// else the first, keeps it.
std::vector<std::uint32_t> repeated_tokens(const BackVocabulary& tokens);

// All files of the tokenizer; none if the metadata has no tokens, or ones that have no place.
void back_tokenizer(BackKeys& keys, const BackFacts& facts, const BackVocabulary& tokens,
                    const SpecialIds& special, BackFiles& out);

}  // namespace wtool
