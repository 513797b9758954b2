#include "formats/hf/back_vocabulary.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "formats/hf/back_files.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::string_view kTokens = "tokenizer.ggml.tokens", kTypes = "tokenizer.ggml.token_type",
                           kScores = "tokenizer.ggml.scores";

Error broken(std::string_view key, std::string text) {
  return Error(Fault::BadFile, std::move(text)).in(fmt::format("metadata key '{}'", key));
}

void check_type(std::string_view key, const MetaArray& list, bool fits) {
  if (!fits) throw broken(key, fmt::format("is of type arr[{}]", name_of(list.of)));
}
void check_length(std::string_view key, const MetaArray& list, std::size_t tokens) {
  if (list.count != tokens)
    throw broken(key, fmt::format("has {} elements for {} tokens", list.count, tokens));
}

std::int64_t integer(const MetaValue& v) {
  return std::visit(
      [](const auto& x) -> std::int64_t {
        if constexpr (std::is_integral_v<std::decay_t<decltype(x)>>)
          return static_cast<std::int64_t>(x);
        return -1;
      },
      v);
}

}  // namespace

BackVocabulary::BackVocabulary(BackKeys& keys) {
  if (const MetaArray* tokens = keys.array(kTokens)) {
    check_type(kTokens, *tokens, tokens->of == MetaType::String);
    if (tokens->count > kMaxBackTokens)
      throw broken(kTokens, fmt::format("has {} tokens, at most {} are supported", tokens->count,
                                        kMaxBackTokens));
    begins_.reserve(tokens->count + 1);
    for_each(*tokens, [&](const MetaValue& v) {
      const std::string& s = std::get<std::string>(v);
      std::size_t bad = 0;
      if (!is_utf8(s, &bad))
        throw broken(kTokens, fmt::format("token {} ({}) is not UTF-8 from byte {} on",
                                          begins_.size() - 1, quoted(s), bad));
      if (s.size() > kMaxBackTokenText - text_.size())
        throw broken(kTokens, fmt::format("tokens have more than {} bytes", kMaxBackTokenText));
      text_ += s;
      begins_.push_back(static_cast<std::uint32_t>(text_.size()));
      return true;
    });
  }
  const std::size_t count = begins_.size() - 1;
  types_.assign(count, TokenType::Normal);
  if (const MetaArray* types = keys.array(kTypes)) {
    check_type(kTypes, *types,
               types->of != MetaType::String && types->of != MetaType::F32 &&
                   types->of != MetaType::F64 && types->of != MetaType::Bool);
    check_length(kTypes, *types, count);
    has_types_ = true;
    std::size_t id = 0;
    for_each(*types, [&](const MetaValue& v) {
      const std::int64_t code = integer(v);
      if (code < 1 || code > 6)
        throw broken(kTypes,
                     fmt::format("token {} has type {}, which is none of 1 to 6", id, code));
      types_[id++] = static_cast<TokenType>(code);
      return true;
    });
  }
  if (const MetaArray* scores = keys.array(kScores)) {
    check_type(kScores, *scores, scores->of == MetaType::F32);
    check_length(kScores, *scores, count);
    scores_.reserve(count);
    for_each(*scores, [&](const MetaValue& v) {
      const float score = std::get<float>(v);
      if (!std::isfinite(score))
        throw broken(kScores, fmt::format("the score of token {} is {}", scores_.size(), score));
      scores_.push_back(score);
      return true;
    });
  }
  for (used_ = count; used_ > 0 && is_filler(used_ - 1);) --used_;
}

bool BackVocabulary::is_filler(std::size_t id) const {
  return (types_[id] == TokenType::Unused || types_[id] == TokenType::Unknown) &&
         text(id) == fmt::format("[PAD{}]", id);
}

SpecialIds::SpecialIds(BackKeys& keys, std::uint64_t vocabulary) {
  const auto id_of = [&](std::string_view name) -> std::optional<std::uint32_t> {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
    auto id = keys.count(key);
    if (id == 0xFFFFFFFF) id.reset();  // llama.cpp's "none"
    if (id && *id >= vocabulary)
      throw broken(key, fmt::format("is {}, of {} tokens", *id, vocabulary));
    return id ? std::optional(static_cast<std::uint32_t>(*id)) : std::nullopt;
  };
  for (std::size_t i = 0; i < kSpecials; ++i) ids[i] = id_of(kSpecialNames[i].key);
  if (!of(Special::Sep)) ids[static_cast<std::size_t>(Special::Sep)] = id_of("separator");
  for (std::string_view name : {"eot", "eom"})
    if (const auto id = id_of(name);
        id && id != of(Special::Eos) && std::ranges::find(more_ends, *id) == more_ends.end())
      more_ends.push_back(*id);
}

}  // namespace wtool
