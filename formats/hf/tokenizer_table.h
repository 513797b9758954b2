#pragma once
// The table of tokens that a GGUF file holds: text, score and type by id.
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/metadata.h"

namespace wtool {

// wtool's own limits. The largest vocabulary known has 901,629 tokens (XLM-V), the longest token a
// few hundred bytes, the largest tokenizer.json 33 MB (Gemma 3).
inline constexpr std::uint64_t kMaxTokens = std::uint64_t{1} << 22;
inline constexpr std::size_t kMaxTokenBytes = std::size_t{1} << 16;
inline constexpr std::uint64_t kMaxTokenizerFile = std::uint64_t{128} << 20;
inline constexpr std::uint64_t kMaxTokenizerConfig = std::uint64_t{16} << 20;

enum class TokenType : std::uint8_t {  // the codes of GGUF
  Normal = 1,
  Unknown = 2,
  Control = 3,
  UserDefined = 4,
  Unused = 5,
  Byte = 6,
};

// Texts are views of the file that they come from, which outlives the table, or kept().
class TokenTable {
 public:
  struct Token {
    std::string_view text;  // meaningless unless taken
    float score = kPadding;
    TokenType type = TokenType::Unused;
    bool taken = false;
  };
  static constexpr float kPadding = -10000.0f, kAdded = -1000.0f;

  TokenTable(std::uint64_t entries, std::string_view where);  // `where`: what says how many

  std::uint64_t size() const noexcept { return tokens_.size(); }
  bool holds(std::uint64_t id) const noexcept { return id < tokens_.size() && tokens_[id].taken; }
  const Token& operator[](std::uint64_t id) const noexcept { return tokens_[id]; }

  // `id` is below size(). Replaces what is there.
  void set(std::uint64_t id, std::string_view text, float score, TokenType type);
  std::string_view keep(std::string text) { return kept_.emplace_back(std::move(text)); }

  // Throws BadFile if a text has two ids: llama.cpp aborts on that.
  void check_unique(std::string_view file) const;
  std::uint64_t find(std::string_view text) const noexcept;  // size() if there is none

  MetaArray texts() const;  // gaps are "[PAD7]"
  MetaArray scores() const;
  MetaArray types() const;

  // WordPiece: what continues a word loses "##", the others but control tokens get U+2581.
  void mark_words();

 private:
  std::vector<Token> tokens_;
  std::deque<std::string> kept_;  // which never moves what it holds
};

// Strings one after another, as a MetaArray stores them.
class StringList {
 public:
  void add(std::string_view text) { add(text, {}); }
  void add(std::string_view begin, std::string_view rest);  // one string of two pieces
  std::uint64_t count() const noexcept { return count_; }
  void reserve(std::size_t bytes) { bytes_.reserve(bytes); }
  MetaArray array() &&;
  // Calls visit(std::string_view) for each.
  template <class Visit>
  void each(Visit visit) const {
    for (std::size_t at = 0; at < bytes_.size();) {
      const auto n = static_cast<std::size_t>(load<std::uint64_t>(Bytes(bytes_).subspan(at)));
      visit(as_text(Bytes(bytes_).subspan(at + 8, n)));
      at += 8 + n;
    }
  }

 private:
  Buffer bytes_;
  std::uint64_t count_ = 0;
};

bool looks_special(std::string_view text) noexcept;  // "<|…|>" and other forms of control tokens
std::string with_spaces(std::string_view text);      // U+2581 replaced by a space

}  // namespace wtool
