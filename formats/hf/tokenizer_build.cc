#include "formats/hf/tokenizer_build.h"

#include <algorithm>
#include <array>
#include <unordered_set>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/base/text_hash.h"
#include "lib/base/utf8.h"

namespace wtool {
namespace {

TokenTable sized_table(std::uint64_t needed, std::string_view file, const BuildSources& from) {
  const std::uint64_t entries = from.vocabulary == 0 ? needed : from.vocabulary;
  if (needed > entries)
    throw Error(Fault::BadFile,
                fmt::format("has {} tokens, but vocab_size in config.json is {}", needed, entries))
        .in(file)
        .hint(
            "the tokenizer is of another model, or its tokens were added without making room for "
            "them: --no-vocab leaves it out");
  return TokenTable(entries, "config.json: vocab_size");
}

// An added token, in the words of `file`; `normal` are what does not look special.
void set_added(TokenTable& table, const AddedToken& token, float score, bool as_said) {
  const bool control = token.special || (!as_said && looks_special(token.text));
  const bool plain = control || as_said || token.text.find("\u2581") == token.text.npos;
  table.set(token.id, plain ? token.text : table.keep(with_spaces(token.text)), score,
            control ? TokenType::Control : TokenType::UserDefined);
}

// Two files, or two places in one, must not give an id to different tokens.
void add_checked(TokenTable& table, const AddedToken& token, std::string_view file, float score) {
  if (table.holds(token.id) && table[token.id].text != token.text &&
      table[token.id].text != with_spaces(token.text))
    throw Error(Fault::BadFile, fmt::format("token {} is {}, but it is {} already", token.id,
                                            quoted(token.text), quoted(table[token.id].text)))
        .in(file);
  set_added(table, token, score, false);
}

// What tokenizer_config.json calls a special token is one, in the vocabulary or not.
void mark_named(TokenTable& table, const TokenizerConfig& config) {
  std::unordered_set<std::string_view, TextHash> names(config.more_specials.begin(),
                                                       config.more_specials.end());
  names.insert(config.texts.begin(), config.texts.end());
  names.erase("");
  if (names.empty()) return;
  for (std::uint64_t id = 0; id < table.size(); ++id)
    if (const TokenTable::Token t = table[id];
        t.taken && t.type == TokenType::Normal && names.contains(t.text))
      table.set(id, t.text, t.score, TokenType::Control);
}

std::uint64_t needed_by(const TokenizerJson& json, const BuildSources& from) {
  std::uint64_t needed = json.entries();
  for (const AddedToken& a : from.config.added) needed = std::max(needed, a.id + 1);
  for (const AddedToken& a : from.added_file) needed = std::max(needed, a.id + 1);
  return needed;
}

void set_vocabulary(TokenTable& table, const TokenizerJson& json) {
  for (const TokenizerJson::Entry& e : json.vocabulary) {
    if (table.holds(e.id))
      throw Error(Fault::BadFile, fmt::format("token id {} is given to {} and to {}", e.id,
                                              quoted(table[e.id].text), quoted(e.text)))
          .in(json.file);
    table.set(e.id, e.text, e.score, TokenType::Normal);
  }
}

void set_all_added(TokenTable& table, const TokenizerJson& json, const BuildSources& from,
                   float score) {
  for (const AddedToken& a : json.added) add_checked(table, a, json.file, score);
  for (const AddedToken& a : from.added_file) add_checked(table, a, "added_tokens.json", score);
  for (const AddedToken& a : from.config.added) add_checked(table, a, from.config.file, score);
}

TokenType type_of_piece(SentencePieceModel::Type type) {
  using Type = SentencePieceModel::Type;
  switch (type) {
    case Type::Unknown: return TokenType::Unknown;
    case Type::Control: return TokenType::Control;
    case Type::Unused: return TokenType::Unused;
    case Type::Byte: return TokenType::Byte;
    case Type::UserDefined:  // the reference does not tell these apart either
    case Type::Normal: break;
  }
  return TokenType::Normal;
}

bool is_byte(std::string_view text) {  // "<0x0A>"
  const auto hex = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
  };
  return text.size() == 6 && text.starts_with("<0x") && text[5] == '>' && hex(text[3]) &&
         hex(text[4]);
}

// The negative rank of the first merge that makes each token. What none makes is a character of its
// own, or out of reach: then last.
class Ranks {
 public:
  explicit Ranks(const TokenizerJson& json) : json_(json), ranks_(json.vocabulary.size(), kNone) {
    order_.reserve(json.vocabulary.size());
    for (std::uint32_t i = 0; i < json.vocabulary.size(); ++i) order_.push_back(i);
    std::ranges::sort(order_, {}, [&](std::uint32_t i) { return json_.vocabulary[i].text; });
    std::uint32_t rank = 0;
    json.merges.each([&](std::string_view merge) { note(merge, rank++); });
  }
  std::optional<float> score(std::size_t i) const {
    if (ranks_[i] != kNone) return -static_cast<float>(ranks_[i]);
    const std::string_view text = json_.vocabulary[i].text;
    if (text.empty() || next_code_point(text).length == text.size()) return 0.0f;
    return std::nullopt;
  }

 private:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;

  void note(std::string_view merge, std::uint32_t rank) {
    const std::size_t space = merge.find(' ');
    made_.assign(merge.substr(0, space)).append(merge.substr(space + 1));
    const auto text = [&](std::uint32_t i) { return json_.vocabulary[i].text; };
    const auto it = std::ranges::lower_bound(order_, std::string_view(made_), {}, text);
    if (it != order_.end() && text(*it) == made_ && ranks_[*it] == kNone) ranks_[*it] = rank;
  }

  const TokenizerJson& json_;
  std::vector<std::uint32_t> order_, ranks_;
  std::string made_;
};

}  // namespace

TokenTable table_of_words(const TokenizerJson& json, const BuildSources& from) {
  TokenTable table = sized_table(needed_by(json, from), json.file, from);
  set_vocabulary(table, json);
  set_all_added(table, json, from, 0);
  mark_named(table, from.config);
  return table;
}

TokenTable table_of_pieces(const SentencePieceModel& model, std::string_view file,
                           const TokenizerJson* json, const BuildSources& from) {
  TokenTable table = sized_table(model.pieces.size(), file, from);
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePieceModel::Piece& p = model.pieces[id];
    table.set(id, p.text, p.score, type_of_piece(p.type));
  }
  std::uint64_t beyond = 0;
  const AddedToken* first = nullptr;
  const auto add = [&](const AddedToken& token, bool typed) {
    if (token.id >= table.size()) {
      if (beyond++ == 0) first = &token;
    } else if (typed) {
      set_added(table, token, TokenTable::kAdded, from.as_said);
    } else {
      table.set(token.id, token.text, TokenTable::kAdded, TokenType::UserDefined);
    }
  };
  for (const AddedToken& a : from.added_file) add(a, false);
  for (const AddedToken& a : from.config.added) add(a, true);
  if (json && (from.as_said || !from.config.lists_added))
    for (const AddedToken& a : json->added) add(a, true);
  if (first)
    from.notes.push_back(fmt::format(
        "{}: {} of the added tokens ({} is {}) left out: vocab_size in config.json is {}", file,
        beyond, first->id, quoted(first->text), table.size()));
  return table;
}

TokenTable table_of_ranks(const TokenizerJson& json, const BuildSources& from) {
  TokenTable table = sized_table(needed_by(json, from), json.file, from);
  set_vocabulary(table, json);
  const Ranks ranks(json);
  const float last = -static_cast<float>(json.merges.count()) - 1;
  std::uint64_t unreachable = 0;
  for (std::size_t i = 0; i < json.vocabulary.size(); ++i) {
    const TokenizerJson::Entry& e = json.vocabulary[i];
    const auto score = ranks.score(i);
    const bool byte = is_byte(e.text);
    const bool unknown = !byte && !e.text.empty() && e.text == json.unknown;
    if (!score && !byte && !unknown && !json.find_added(e.text)) ++unreachable;
    table.set(e.id, e.text, byte || unknown ? 0 : score.value_or(last),
              byte      ? TokenType::Byte
              : unknown ? TokenType::Unknown
                        : TokenType::Normal);
  }
  set_all_added(table, json, from, TokenTable::kAdded);
  mark_named(table, from.config);
  from.notes.push_back(
      fmt::format("{}: scores from merge ranks: there is no tokenizer.model", json.file));
  if (unreachable > 0)
    from.notes.push_back(
        fmt::format("{}: no merge makes {} of the tokens: they come last", json.file, unreachable));
  return table;
}

TokenTable table_of_unigrams(const TokenizerJson& json, const BuildSources& from) {
  TokenTable table = sized_table(needed_by(json, from), json.file, from);
  set_vocabulary(table, json);
  const auto add = [&](const AddedToken& a, std::string_view file) {
    add_checked(table, a, file, table.holds(a.id) ? table[a.id].score : 0);
  };
  for (const AddedToken& a : json.added) add(a, json.file);
  for (const AddedToken& a : from.config.added) add(a, from.config.file);
  mark_named(table, from.config);
  if (json.unknown_id && table.holds(*json.unknown_id)) {
    const TokenTable::Token t = table[*json.unknown_id];
    table.set(*json.unknown_id, t.text, t.score, TokenType::Unknown);
  }
  return table;
}

TokenTable table_of_fairseq(const SentencePieceModel& model, std::string_view file,
                            const BuildSources& from) {
  constexpr std::size_t kOwn = 3;  // pieces that have a place of their own: <unk>, <s>, </s>
  if (model.pieces.size() < kOwn)
    throw Error(Fault::BadFile, fmt::format("has {} pieces, fewer than the {} that every model has",
                                            model.pieces.size(), kOwn))
        .in(file);
  const std::uint64_t mask = model.pieces.size() + 1;
  TokenTable table = sized_table(mask + 1, file, from);
  for (const std::uint64_t id : {0, 1, 2}) {
    static constexpr std::array<std::string_view, 3> kFirst{"<s>", "<pad>", "</s>"};
    table.set(id, kFirst[id], 0, TokenType::Control);
  }
  table.set(3, "<unk>", 0, TokenType::Unknown);
  for (std::size_t i = kOwn; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& p = model.pieces[i];
    table.set(i + 1, p.text, p.score, type_of_piece(p.type));
  }
  table.set(mask, "<mask>", 0, TokenType::Control);
  return table;
}

}  // namespace wtool
