#include "formats/hf/tokenizer_config.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/model/model.h"

namespace wtool {
namespace {

using Kind = JsonReader::Kind;

constexpr std::array<RoleRow, kRoles> kRows{
    {{"bos", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token"},
     {"eos", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token"},
     {"unk", "tokenizer.ggml.unknown_token_id", ""},
     {"sep", "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.add_sep_token"},  // sic
     {"pad", "tokenizer.ggml.padding_token_id", ""},
     {"cls", "", ""},  // the reference has a name for its key, and writes none
     {"mask", "tokenizer.ggml.mask_token_id", ""},
     {"eot", "tokenizer.ggml.eot_token_id", ""},
     {"eom", "tokenizer.ggml.eom_token_id", ""}}};

// "bos_token" with suffix "_token": 0.
std::optional<std::size_t> role_in(std::string_view key, std::string_view prefix,
                                   std::string_view suffix) {
  if (!key.starts_with(prefix) || !key.ends_with(suffix) ||
      key.size() < prefix.size() + suffix.size())
    return std::nullopt;
  key = key.substr(prefix.size(), key.size() - prefix.size() - suffix.size());
  const auto it = std::ranges::find(kRows, key, &RoleRow::name);
  if (it == kRows.end()) return std::nullopt;
  return static_cast<std::size_t>(it - kRows.begin());
}

// "<s>", or {"content": "<s>", …}; empty if it is neither.
std::string_view text_of_token(JsonReader& in) {
  if (in.peek() != Kind::Object) return maybe_string(in).value_or("");
  std::string_view out, key;
  for (in.begin_object(); in.next_member(key);)
    if (key == "content")
      out = maybe_string(in).value_or("");
    else
      in.skip();
  return out;
}

// {"32000": {"content": …, "special": …}, …}
void read_added_decoder(JsonReader& in, TokenizerConfig& out) {
  if (in.peek() != Kind::Object) return in.skip();
  out.lists_added = true;
  std::string_view number, key;
  for (in.begin_object(); in.next_member(number);) {
    const auto id = parse_u64(number);
    if (!id || *id >= kMaxTokens)
      throw Error(Fault::BadFile,
                  fmt::format("added_tokens_decoder: {} is no token id", quoted(number)));
    AddedToken token{*id, {}, false};
    bool has_text = false;
    for (in.begin_object(); in.next_member(key);)
      if (key == "content") {
        token.text = in.string();
        has_text = true;
      } else if (key == "special") {
        token.special = maybe_flag(in).value_or(false);
      } else {
        in.skip();
      }
    if (!has_text || token.text.size() > kMaxTokenBytes)
      throw Error(Fault::BadFile,
                  fmt::format("added_tokens_decoder: token {} has {}", *id,
                              has_text ? fmt::format("{} bytes, wtool's limit is {}",
                                                     token.text.size(), kMaxTokenBytes)
                                       : std::string("no content")));
    out.added.push_back(token);
  }
}

void read_members(JsonReader& in, TokenizerConfig& out) {
  std::string_view key;
  for (in.begin_object(); in.next_member(key);)
    if (const auto add = role_in(key, "add_", "_token")) {
      out.adds[*add] = maybe_flag(in);
    } else if (const auto role = role_in(key, "", "_token")) {
      out.texts[*role] = text_of_token(in);
    } else if (key == "additional_special_tokens" && in.peek() == Kind::Array) {
      for (in.begin_array(); in.next_item();) out.more_specials.push_back(text_of_token(in));
    } else if (key == "added_tokens_decoder") {
      read_added_decoder(in, out);
    } else if (key == "tokenizer_class") {
      out.tokenizer_class = maybe_string(in).value_or("");
    } else if (key == "add_prefix_space") {
      out.add_prefix_space = maybe_flag(in);
    } else if (key == "clean_up_tokenization_spaces") {
      out.clean_up_spaces = maybe_flag(in);
    } else if (key == "chat_template") {
      out.templates = chat_templates_in(in);
    } else {
      in.skip();
    }
}

}  // namespace

const RoleRow& row_of(Role role) noexcept {
  return kRows[static_cast<std::size_t>(role)];
}

bool TokenizerConfig::names(std::string_view token) const noexcept {
  return !token.empty() && (std::ranges::find(texts, token) != texts.end() ||
                            std::ranges::find(more_specials, token) != more_specials.end());
}

TokenizerConfig read_tokenizer_config(const Model& model) {
  TokenizerConfig out;
  const SideFile* side = model.side_file("tokenizer_config.json");
  if (!side) return out;
  out.present = true;
  out.file = side->content->name();
  out.text = text_of_file(*side->content, kMaxTokenizerConfig);
  read_json_file(*side->content, out.text, [&](JsonReader& in) { read_members(in, out); });
  return out;
}

std::vector<AddedToken> read_added_tokens(const Model& model, Buffer& text) {
  std::vector<AddedToken> out;
  const SideFile* side = model.side_file("added_tokens.json");
  if (!side) return out;
  text = text_of_file(*side->content, kMaxTokenizerConfig);
  read_json_file(*side->content, text, [&](JsonReader& in) {
    std::string_view key;
    for (in.begin_object(); in.next_member(key);) {
      if (key.size() > kMaxTokenBytes)
        throw Error(Fault::BadFile, fmt::format("a token of {} bytes, wtool's limit is {}",
                                                key.size(), kMaxTokenBytes));
      const std::string_view token = key;
      out.push_back({token_id(in), token, false});
    }
  });
  return out;
}

}  // namespace wtool
