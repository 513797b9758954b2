// tokenizer.model: a ModelProto of sentencepiece_model.proto, that is fields 1 (pieces: text,
// score, type), 2 (how it was trained: of interest are ids) and 3 (how text is normalised).
#include <array>

#include <fmt/format.h>

#include "formats/hf/back_tokenizer.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::string_view kSpace = "\u2581";
// llama.cpp's converter gives this to tokens of tokenizer_config.json, whose own score it forgets.
constexpr float kPlaceholder = -1000;

void varint(Buffer& out, std::uint64_t n) {
  for (; n >= 0x80; n >>= 7) out.push_back(static_cast<std::byte>(n | 0x80));
  out.push_back(static_cast<std::byte>(n));
}
void number(Buffer& out, unsigned field, std::uint64_t n) {
  varint(out, std::uint64_t{field} << 3);
  varint(out, n);
}
void bytes(Buffer& out, unsigned field, Bytes value) {
  varint(out, std::uint64_t{field} << 3 | 2);
  varint(out, value.size());
  append(out, value);
}
void text(Buffer& out, unsigned field, std::string_view value) {
  bytes(out, field, as_bytes(value));
}
void real(Buffer& out, unsigned field, float value) {
  varint(out, std::uint64_t{field} << 3 | 5);
  append(out, value);
}
void id(Buffer& out, unsigned field, std::optional<std::uint32_t> value) {
  number(out, field, value ? std::uint64_t{*value} : ~std::uint64_t{0});  // -1: there is none
}

bool is_byte_name(std::string_view s) {  // "<0x0A>"
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
  return s.size() == 6 && s.starts_with("<0x") && hex(s[3]) && hex(s[4]) && s[5] == '>';
}

// Why SentencePiece would refuse the model; empty: it would not.
std::string flaw_of(const BackTokenizer& from) {
  const BackVocabulary& tokens = from.tokens;
  std::size_t bytes = 0, unknown = 0;
  for (std::size_t i = 0; i < tokens.used(); ++i) {
    if (tokens.text(i).empty()) return fmt::format("token {} has no text", i);
    if (tokens.type(i) == TokenType::Unknown && ++unknown == 2)
      return fmt::format("token {} is a second unknown one", i);
    if (tokens.type(i) != TokenType::Byte) continue;
    if (!is_byte_name(tokens.text(i)))
      return fmt::format("token {} is a byte and called {}", i, quoted(tokens.text(i)));
    ++bytes;
  }
  if (bytes != 0 && bytes != 256) return fmt::format("{} of 256 bytes are tokens", bytes);
  if (!sentencepiece_unknown(from)) return "no token is the unknown one";
  const auto repeated = repeated_tokens(tokens);
  if (!repeated.empty())
    return fmt::format("token {} repeats {}", repeated[0], quoted(tokens.text(repeated[0])));
  return {};
}

Buffer piece_of(const BackVocabulary& tokens, std::size_t i, TokenType type) {
  Buffer piece;
  text(piece, 1, sentencepiece_text(tokens, i));
  const bool forgotten = type != TokenType::Normal && tokens.score(i) == kPlaceholder;
  real(piece, 2, forgotten ? 0.0F : tokens.score(i));
  if (type != TokenType::Normal) number(piece, 3, static_cast<std::uint64_t>(type));
  return piece;
}

Buffer trainer_spec(const BackTokenizer& from, std::optional<std::uint32_t> unknown,
                    bool byte_fallback) {
  constexpr std::uint64_t kBpe = 2;  // by scores, as llama.cpp merges
  const std::array ids{unknown, from.special.of(Special::Bos), from.special.of(Special::Eos),
                       from.special.of(Special::Pad)};
  Buffer spec;
  number(spec, 3, kBpe);
  number(spec, 4, from.tokens.used());
  number(spec, 35, byte_fallback);
  for (unsigned i = 0; i < ids.size(); ++i) id(spec, 40 + i, ids[i]);
  for (unsigned i = 0; i < ids.size(); ++i)  // unk_piece, …: by these they are found
    if (ids[i]) text(spec, 45 + i, sentencepiece_text(from.tokens, *ids[i]));
  return spec;
}

}  // namespace

std::string sentencepiece_text(const BackVocabulary& tokens, std::size_t id) {
  std::string out(tokens.text(id));
  if (tokens.type(id) != TokenType::UserDefined) return out;
  for (std::size_t at = 0; (at = out.find(' ', at)) != out.npos; at += kSpace.size())
    out.replace(at, 1, kSpace);
  return out;
}

std::optional<std::uint32_t> sentencepiece_unknown(const BackTokenizer& from) {
  const BackVocabulary& tokens = from.tokens;
  for (std::uint32_t i = 0; i < tokens.used(); ++i)
    if (tokens.type(i) == TokenType::Unknown) return i;
  if (const auto told = from.special.of(Special::Unk); told && *told < tokens.used()) return told;
  for (std::uint32_t i = 0; i < tokens.used(); ++i)
    if (tokens.type(i) == TokenType::Control && tokens.text(i) == "<unk>") return i;
  return std::nullopt;
}

Buffer back_tokenizer_model(const BackTokenizer& from, bool remove_extra_whitespaces,
                            std::vector<std::string>& lost) {
  if (const std::string flaw = flaw_of(from); !flaw.empty()) {
    lost.push_back("tokenizer.model: left out, since " + flaw);
    return {};
  }
  if (!from.tokens.has_scores())
    lost.emplace_back("tokenizer.model: all scores are 0, since the metadata has none");
  const auto unknown = sentencepiece_unknown(from);
  Buffer out;
  bool byte_fallback = false;
  for (std::size_t i = 0; i < from.tokens.used(); ++i) {
    const TokenType type = i == unknown ? TokenType::Unknown : from.tokens.type(i);
    byte_fallback = byte_fallback || type == TokenType::Byte;
    bytes(out, 1, piece_of(from.tokens, i, type));
  }
  bytes(out, 2, trainer_spec(from, unknown, byte_fallback));
  Buffer normalizer;
  text(normalizer, 1, "identity");
  number(normalizer, 3, from.add_space_prefix.value_or(true));
  number(normalizer, 4, remove_extra_whitespaces);
  number(normalizer, 5, true);  // spaces become U+2581
  bytes(out, 3, normalizer);
  return out;
}

}  // namespace wtool
