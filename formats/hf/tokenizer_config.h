#pragma once
// tokenizer_config.json: what is said about a tokenizer rather than what it is made of.
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/hf/chat_template.h"
#include "formats/hf/tokenizer_json.h"

namespace wtool {

// Tokens with a part to play, in the order in which the reference looks for them.
enum class Role : std::uint8_t { Bos, Eos, Unknown, Separator, Padding, Class, Mask, Eot, Eom };
inline constexpr std::size_t kRoles = 9;
struct RoleRow {
  std::string_view name;             // "bos": of bos_token, bos_token_id, add_bos_token
  std::string_view id_key, add_key;  // in GGUF; empty: it has no such key
};
const RoleRow& row_of(Role role) noexcept;

struct TokenizerConfig {
  bool present = false;
  std::string file;
  Buffer text;                                   // what the views look into
  std::array<std::string, kRoles> texts;         // of bos_token, …; empty: not said
  std::array<std::optional<bool>, kRoles> adds;  // add_bos_token, …
  std::vector<std::string_view> more_specials;   // additional_special_tokens
  std::vector<AddedToken> added;                 // added_tokens_decoder, in file order
  bool lists_added = false;                      // it has an added_tokens_decoder
  std::string tokenizer_class;
  std::optional<bool> add_prefix_space, clean_up_spaces;
  std::vector<ChatTemplate> templates;

  std::string& text_of(Role r) noexcept { return texts[static_cast<std::size_t>(r)]; }
  const std::string& text_of(Role r) const noexcept { return texts[static_cast<std::size_t>(r)]; }
  bool names(std::string_view token) const noexcept;  // as one with a part to play
};

// All empty if the folder has none. Throws BadFile.
TokenizerConfig read_tokenizer_config(const Model& model);
// added_tokens.json: {"text": id, …}, in file order. `text` is what the views look into.
std::vector<AddedToken> read_added_tokens(const Model& model, Buffer& text);

}  // namespace wtool
