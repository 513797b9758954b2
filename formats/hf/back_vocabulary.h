#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/hf/back_keys.h"

namespace wtool {

// GGUF's codes, which are SentencePiece's, too.
enum class TokenType : std::uint8_t { Normal = 1, Unknown, Control, UserDefined, Unused, Byte };

// tokenizer.ggml.tokens and what lies beside: the texts in one piece, since there may be 256k.
class BackVocabulary {
 public:
  // Throws BadFile: lists of unequal length, a text that is not UTF-8, a type that is none, a score
  // that is no number; too many.
  explicit BackVocabulary(BackKeys& keys);

  std::size_t size() const noexcept { return types_.size(); }
  // Without what only fills the embedding up at the end.
  std::size_t used() const noexcept { return used_; }
  std::string_view text(std::size_t id) const noexcept {
    return std::string_view(text_).substr(begins_[id], begins_[id + 1] - begins_[id]);
  }
  TokenType type(std::size_t id) const noexcept { return types_[id]; }
  float score(std::size_t id) const noexcept { return scores_.empty() ? 0.0F : scores_[id]; }
  bool is_filler(std::size_t id) const;  // unused, or unknown in files of 2024; called "[PAD<i>]"
  bool has_types() const noexcept { return has_types_; }
  bool has_scores() const noexcept { return !scores_.empty(); }
  // Control and user-defined: what is found in a text before it is split.
  bool is_added(std::size_t id) const noexcept {
    return types_[id] == TokenType::Control || types_[id] == TokenType::UserDefined;
  }

 private:
  std::string text_;
  std::vector<std::uint32_t> begins_{0};
  std::vector<TokenType> types_;
  std::vector<float> scores_;
  std::size_t used_ = 0;
  bool has_types_ = false;
};

enum class Special : std::uint8_t { Bos, Eos, Unk, Sep, Pad, Cls, Mask };
inline constexpr std::size_t kSpecials = 7;
struct SpecialName {
  std::string_view key;   // in GGUF: "tokenizer.ggml.<key>_token_id"
  std::string_view name;  // in Hugging Face's files: "<name>_token"
};
inline constexpr std::array<SpecialName, kSpecials> kSpecialNames{{{"bos", "bos"},
                                                                   {"eos", "eos"},
                                                                   {"unknown", "unk"},
                                                                   {"seperator", "sep"},
                                                                   {"padding", "pad"},
                                                                   {"cls", "cls"},
                                                                   {"mask", "mask"}}};

// The ids of tokens that have a role, each smaller than `vocabulary`.
struct SpecialIds {
  SpecialIds(BackKeys& keys, std::uint64_t vocabulary);
  std::optional<std::uint32_t> of(Special s) const { return ids[static_cast<std::size_t>(s)]; }

  std::array<std::optional<std::uint32_t>, kSpecials> ids;
  std::vector<std::uint32_t> more_ends;  // eot, eom: where text may end, too
};

}  // namespace wtool
