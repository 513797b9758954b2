#include "formats/hf/tokenizer_table.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::string_view kSpace = "\u2581";  // SentencePiece's form of a space

// As llama.cpp reads it: to the first NUL.
std::string_view as_c_string(std::string_view s) noexcept {
  return s.substr(0, s.find('\0'));
}

}  // namespace

TokenTable::TokenTable(std::uint64_t entries, std::string_view where) {
  if (entries > kMaxTokens)
    throw Error(Fault::BadFile,
                fmt::format("a vocabulary of {} tokens, wtool's limit is {}", entries, kMaxTokens))
        .in(where);
  tokens_.resize(static_cast<std::size_t>(entries));
}

void TokenTable::set(std::uint64_t id, std::string_view text, float score, TokenType type) {
  tokens_[static_cast<std::size_t>(id)] = {text, score, type, true};
}

std::uint64_t TokenTable::find(std::string_view text) const noexcept {
  const auto it =
      std::ranges::find_if(tokens_, [&](const Token& t) { return t.taken && t.text == text; });
  return static_cast<std::uint64_t>(it - tokens_.begin());
}

void TokenTable::check_unique(std::string_view file) const {
  std::vector<std::uint32_t> order;
  order.reserve(tokens_.size());
  for (std::uint32_t i = 0; i < tokens_.size(); ++i)
    if (tokens_[i].taken && !as_c_string(tokens_[i].text).empty()) order.push_back(i);
  const auto text = [&](std::uint32_t i) { return as_c_string(tokens_[i].text); };
  std::ranges::sort(order, [&](std::uint32_t a, std::uint32_t b) {
    const int c = text(a).compare(text(b));
    return c != 0 ? c < 0 : a < b;
  });
  for (std::size_t i = 1; i < order.size(); ++i)
    if (text(order[i - 1]) == text(order[i]))
      throw Error(Fault::BadFile,
                  fmt::format("token {} has two ids, {} and {}: llama.cpp would abort",
                              quoted(text(order[i])), order[i - 1], order[i]))
          .in(file);
}

MetaArray TokenTable::texts() const {
  std::size_t bytes = 0;
  for (const Token& t : tokens_) bytes += 8 + (t.taken ? t.text.size() : 16);
  StringList out;
  out.reserve(bytes);
  for (std::size_t i = 0; i < tokens_.size(); ++i)
    if (tokens_[i].taken)
      out.add(tokens_[i].text);
    else
      out.add(fmt::format("[PAD{}]", i));
  return std::move(out).array();
}

MetaArray TokenTable::scores() const {
  Buffer bytes;
  bytes.reserve(tokens_.size() * sizeof(float));
  for (const Token& t : tokens_) append(bytes, t.score);
  const std::uint64_t size = bytes.size();
  return {MetaType::F32, tokens_.size(), {from_memory("tokenizer", std::move(bytes)), 0, size}};
}

MetaArray TokenTable::types() const {
  Buffer bytes;
  bytes.reserve(tokens_.size() * sizeof(std::int32_t));
  for (const Token& t : tokens_) append(bytes, static_cast<std::int32_t>(t.type));
  const std::uint64_t size = bytes.size();
  return {MetaType::I32, tokens_.size(), {from_memory("tokenizer", std::move(bytes)), 0, size}};
}

void TokenTable::mark_words() {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    Token& t = tokens_[i];
    if (!t.taken) t = {keep(fmt::format("[PAD{}]", i)), t.score, t.type, true};
    if (t.type == TokenType::Control) continue;
    if (t.text.starts_with("##"))
      t.text.remove_prefix(2);
    else
      t.text = keep(std::string(kSpace).append(t.text));
  }
}

void StringList::add(std::string_view begin, std::string_view rest) {
  append(bytes_, std::uint64_t{begin.size() + rest.size()});
  append(bytes_, as_bytes(begin));
  append(bytes_, as_bytes(rest));
  ++count_;
}

MetaArray StringList::array() && {
  const std::uint64_t size = bytes_.size();
  return {MetaType::String, count_, {from_memory("tokenizer", std::move(bytes_)), 0, size}};
}

// Files say of some control tokens that they are none (Command-R, DeepSeek Coder, Gemma).
bool looks_special(std::string_view text) noexcept {
  static constexpr std::array<std::string_view, 4> kWhole{"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
  struct Form {
    std::string_view begin, end;
  };
  static constexpr std::array<Form, 3> kForms{
      {{"<|", "|>"}, {"<\uFF5C", "\uFF5C>"}, {"<unused", ">"}}};
  return std::ranges::find(kWhole, text) != kWhole.end() ||
         std::ranges::any_of(kForms, [&](const Form& f) {
           return text.starts_with(f.begin) && text.ends_with(f.end);
         });
}

std::string with_spaces(std::string_view text) {
  std::string out;
  for (std::size_t at = 0;;) {
    const std::size_t next = text.find(kSpace, at);
    out += text.substr(at, next - at);
    if (next == text.npos) return out;
    out += ' ';
    at = next + kSpace.size();
  }
}

}  // namespace wtool
