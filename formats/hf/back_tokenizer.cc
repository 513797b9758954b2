// The files of a tokenizer, by its kind, and tokenizer_config.json, which all have.
#include "formats/hf/back_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::string_view kTemplate = "tokenizer.chat_template";

// Texts at which llama.cpp ends, too, if they are control tokens.
constexpr std::array<std::string_view, 12> kEnds{
    "<|eot_id|>",      "<|im_end|>", "<|end|>", "<|return|>",      "<end_of_turn>", "<|endoftext|>",
    "<|end_of_text|>", "<|eom_id|>", "<EOT>",   "<|end_of_turn|>", "<|endofturn|>", "</s>"};

// The class that takes tokenizer.json as it is.
constexpr std::string_view kPlainClass = "PreTrainedTokenizerFast";
struct ClassRow {
  std::string_view model_type, byte_level, sentencepiece;
};
constexpr std::array kClasses{ClassRow{"qwen2", "Qwen2Tokenizer", "LlamaTokenizer"},
                              ClassRow{"qwen2_moe", "Qwen2Tokenizer", "LlamaTokenizer"},
                              ClassRow{"qwen3", "Qwen2Tokenizer", "LlamaTokenizer"},
                              ClassRow{"qwen3_moe", "Qwen2Tokenizer", "LlamaTokenizer"},
                              ClassRow{"gemma", kPlainClass, "GemmaTokenizer"},
                              ClassRow{"gemma2", kPlainClass, "GemmaTokenizer"},
                              ClassRow{"gemma3_text", kPlainClass, "GemmaTokenizer"},
                              ClassRow{"phi3", "GPT2Tokenizer", "LlamaTokenizer"},
                              ClassRow{"granite", "GPT2Tokenizer", "LlamaTokenizer"}};

std::string_view class_of(std::string_view model_type, bool byte_level) {
  const auto row = std::ranges::find(kClasses, model_type, &ClassRow::model_type);
  if (row == kClasses.end()) return byte_level ? kPlainClass : "LlamaTokenizer";
  return byte_level ? row->byte_level : row->sentencepiece;
}

SideFile file(std::string name, Buffer bytes) {
  SourcePtr content = from_memory(name, std::move(bytes));
  return {std::move(name), std::move(content)};
}

// tokenizer_config.json, member by member.
class TokenizerConfig {
 public:
  TokenizerConfig(BackKeys& keys, const BackTokenizer& from, bool byte_level, bool cleans_spaces)
      : keys_(keys), from_(from), byte_level_(byte_level), cleans_spaces_(cleans_spaces) {}

  std::string text() {
    const std::string_view name = class_of(from_.model_type, byte_level_);
    const bool llama = name == "LlamaTokenizer";
    flag("add_bos_token", from_.add_bos);
    flag("add_eos_token", from_.add_eos);
    if (!byte_level_) flag("add_sep_token", from_.add_sep);
    if (byte_level_ || llama) flag("add_prefix_space", from_.add_space_prefix);
    added_tokens();
    for (std::size_t i = 0; i < kSpecials; ++i) special(i);
    chat_template();
    flag("clean_up_tokenization_spaces", byte_level_ && cleans_spaces_);
    if (llama) flag("legacy", true);  // a space goes before what follows a special token, too
    string("tokenizer_class", name);
    return out_ + "\n}\n";
  }

 private:
  void name(std::string_view member) {
    out_ += fmt::format("{}\n  \"{}\": ", out_.size() > 1 ? "," : "", member);
  }
  void flag(std::string_view member, std::optional<bool> value) {
    if (!value) return;
    name(member);
    out_ += *value ? "true" : "false";
  }
  void string(std::string_view member, std::string_view value) {
    name(member);
    append_json(out_, value);
  }

  void added_tokens() {
    name("added_tokens_decoder");
    out_ += '{';
    bool first = true;
    for (std::size_t id = 0; id < from_.tokens.used(); ++id) {
      if (!from_.tokens.is_added(id)) continue;
      out_ += fmt::format("{}\n    \"{}\": {{\"content\": ", first ? "" : ",", id);
      append_json(out_, token(id));
      out_ += fmt::format(
          R"(, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": {}}})",
          from_.tokens.type(id) == TokenType::Control);
      first = false;
    }
    out_ += first ? "}" : "\n  }";
  }
  std::string token(std::size_t id) const {
    return byte_level_ ? std::string(from_.tokens.text(id)) : sentencepiece_text(from_.tokens, id);
  }

  // null for the four that classes have defaults for.
  void special(std::size_t i) {
    const auto s = static_cast<Special>(i);
    const std::string member = fmt::format("{}_token", kSpecialNames[i].name);
    if (const auto id = from_.special.of(s)) return string(member, token(*id));
    if (s != Special::Bos && s != Special::Eos && s != Special::Unk && s != Special::Pad) return;
    if (const auto id = sentencepiece_unknown(from_); s == Special::Unk && !byte_level_ && id)
      return string(member, token(*id));
    name(member);
    out_ += "null";
  }

  void chat_template() {
    std::vector<std::pair<std::string, const std::string*>> all;
    if (const std::string* plain = keys_.text(kTemplate)) all.emplace_back("default", plain);
    keys_.skip("tokenizer.chat_templates");  // the names of the others
    const std::string prefix = fmt::format("{}.", kTemplate);
    for (const std::string& key : keys_.unread(prefix))
      all.emplace_back(key.substr(prefix.size()), keys_.text(key));
    std::uint64_t size = 0;
    for (const auto& [which, content] : all) {
      if (!is_utf8(which))
        throw Error(Fault::BadFile,
                    fmt::format("the name of chat template {} is not UTF-8", quoted(which)));
      size += content->size();
    }
    if (size > kMaxBackTemplate)
      throw Error(Fault::BadFile,
                  fmt::format("chat templates have {} bytes, at most {} are supported", size,
                              kMaxBackTemplate));
    if (all.empty()) return;
    if (all.size() == 1 && all[0].first == "default")
      return string("chat_template", *all[0].second);
    name("chat_template");
    out_ += '[';
    for (std::size_t i = 0; i < all.size(); ++i) {
      out_ += i == 0 ? "\n    {\"name\": " : ",\n    {\"name\": ";
      append_json(out_, all[i].first);
      out_ += ", \"template\": ";
      append_json(out_, *all[i].second);
      out_ += '}';
    }
    out_ += "\n  ]";
  }

  BackKeys& keys_;
  const BackTokenizer& from_;
  bool byte_level_, cleans_spaces_;
  std::string out_ = "{";
};

std::optional<BackPre> byte_level(BackKeys& keys, const BackTokenizer& from, BackFiles& out) {
  constexpr std::string_view kMerges = "tokenizer.ggml.merges";
  const std::string* name = keys.text("tokenizer.ggml.pre");
  const MetaArray* merges = keys.array(kMerges);
  if (!merges || merges->of != MetaType::String)
    throw Error(Fault::BadFile, fmt::format("metadata key '{}' is {}", kMerges,
                                            merges ? "no list of str" : "missing"));
  if (merges->count > kMaxBackMerges)
    throw Error(Fault::BadFile,
                fmt::format("metadata key '{}' has {} merges, at most {} are supported", kMerges,
                            merges->count, kMaxBackMerges));
  std::optional<BackPre> pre;
  if (name) pre = back_pre(*name, from.add_space_prefix.value_or(false));
  if (!pre) {
    out.lost.push_back(
        name ? fmt::format(
                   "tokenizer.json: left out, since how 'tokenizer.ggml.pre' {} splits words "
                   "is not known here",
                   quoted(*name))
             : "tokenizer.json: left out, since 'tokenizer.ggml.pre' is missing: how words are "
               "split");
    return std::nullopt;
  }
  if (pre->nfc)
    out.lost.push_back(
        fmt::format("tokenizer.json: the normalizer is NFC, as in all of {}; GGUF does "
                    "not keep it",
                    quoted(*name)));
  if (const auto repeated = repeated_tokens(from.tokens); !repeated.empty())
    out.lost.push_back(fmt::format(
        "tokenizer.json: {} left out, since others have their text: {} is {}",
        repeated.size() == 1 ? "a token is" : fmt::format("{} tokens are", repeated.size()),
        repeated[0], quoted(from.tokens.text(repeated[0]))));
  out.files.push_back(
      file("tokenizer.json", to_buffer(back_tokenizer_json(from, *pre, *merges, out.lost))));
  return pre;
}

void sentencepiece(BackKeys& keys, const BackTokenizer& from, BackFiles& out) {
  keys.skip("tokenizer.ggml.pre");     // "default"
  keys.skip("tokenizer.ggml.merges");  // scores say it
  Buffer model = back_tokenizer_model(
      from, keys.flag("tokenizer.ggml.remove_extra_whitespaces").value_or(false), out.lost);
  if (!model.empty()) out.files.push_back(file("tokenizer.model", std::move(model)));
}

void tell_other_ends(const BackTokenizer& from, std::vector<std::string>& lost) {
  constexpr std::size_t kMost = 8;
  std::string others;
  std::size_t count = 0;
  for (std::uint32_t id = 0; id < from.tokens.used() && count < kMost; ++id)
    if (from.tokens.type(id) == TokenType::Control && id != from.special.of(Special::Eos) &&
        std::ranges::find(kEnds, from.tokens.text(id)) != kEnds.end() &&
        std::ranges::find(from.special.more_ends, id) == from.special.more_ends.end())
      others += fmt::format("{}{} ({})", count++ == 0 ? "" : ", ", from.tokens.text(id), id);
  if (count > 0)
    lost.push_back(fmt::format(
        "eos_token_id: GGUF keeps one; llama.cpp also ends at {}, by their text", others));
}

void tell_flags(const BackTokenizer& from, std::vector<std::string>& lost) {
  if (!from.tokens.has_types()) {
    lost.emplace_back("added_tokens: none, since 'tokenizer.ggml.token_type' is missing");
    return;
  }
  for (std::size_t id = 0; id < from.tokens.used(); ++id)
    if (from.tokens.is_added(id)) {
      lost.emplace_back(
          "added_tokens: lstrip, rstrip, single_word and normalized are false; GGUF does not keep "
          "them");
      return;
    }
}

}  // namespace

std::vector<std::uint32_t> repeated_tokens(const BackVocabulary& tokens) {
  struct Seen {
    std::uint64_t hash;
    bool normal;
    std::uint32_t id;
    auto operator<=>(const Seen&) const = default;
  };
  std::vector<Seen> seen;
  for (std::uint32_t id = 0; id < tokens.used(); ++id)
    seen.push_back({hash_text(tokens.text(id)), !tokens.is_added(id), id});
  std::ranges::sort(seen);
  std::vector<std::uint32_t> repeated;
  for (std::size_t i = 1, first = 0; i < seen.size(); ++i) {
    if (seen[i].hash != seen[first].hash)
      first = i;
    else
      repeated.push_back(seen[i].id);
  }
  std::ranges::sort(repeated);
  return repeated;
}

void back_tokenizer(BackKeys& keys, const BackFacts& facts, const BackVocabulary& tokens,
                    const SpecialIds& special, BackFiles& out) {
  const std::string* kind = keys.text("tokenizer.ggml.model");
  if (!kind || *kind == "no_vocab" || *kind == "none") {
    out.lost.emplace_back("the tokenizer: there is none in the metadata");
    return;
  }
  const bool byte_level_kind = *kind == "gpt2";
  if (!byte_level_kind && *kind != "llama") {
    out.lost.push_back(fmt::format("the tokenizer: one of kind {} is not rebuilt", quoted(*kind)));
    return;
  }
  if (tokens.size() == 0)
    throw Error(Fault::BadFile, "metadata key 'tokenizer.ggml.tokens' is missing");
  const auto flag = [&](std::string_view name) {
    return keys.flag(fmt::format("tokenizer.ggml.add_{}", name));
  };
  const BackTokenizer from{.tokens = tokens,
                           .special = special,
                           .model_type = facts.model_type,
                           .add_bos = flag("bos_token"),
                           .add_eos = flag("eos_token"),
                           .add_sep = flag("sep_token"),
                           .add_space_prefix = flag("space_prefix")};
  std::optional<BackPre> pre;
  if (byte_level_kind)
    pre = byte_level(keys, from, out);
  else
    sentencepiece(keys, from, out);
  tell_flags(from, out.lost);
  tell_other_ends(from, out.lost);
  out.files.push_back(file(
      "tokenizer_config.json",
      to_buffer(TokenizerConfig(keys, from, byte_level_kind, !pre || pre->cleans_spaces).text())));
}

}  // namespace wtool
