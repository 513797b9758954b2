// tokenizer.json, written as text: a tree of 128k tokens and 280k merges would take 100 MB.
#include <algorithm>

#include <fmt/format.h>

#include "formats/hf/back_tokenizer.h"
#include "lib/base/error.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

std::string json(std::string_view s) {
  std::string out;
  append_json(out, s);
  return out;
}

// Which tokens the vocabulary holds. The reference gives added tokens that it lacks the next ids
// after the number of its entries, whatever "id" says: so only those at the end may be left out,
// and only where nothing is missing before them.
struct Places {
  std::vector<bool> kept;
  std::size_t tail = 0;  // from here on, all are added tokens that the vocabulary lacks

  explicit Places(const BackVocabulary& tokens) : kept(tokens.used(), true) {
    for (std::size_t id = 0; id < kept.size(); ++id)
      if (tokens.is_filler(id)) kept[id] = false;
    for (std::uint32_t id : repeated_tokens(tokens)) kept[id] = false;
    for (tail = kept.size(); tail > 0 && kept[tail - 1] && tokens.is_added(tail - 1);) --tail;
    if (std::find(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(tail), false) !=
        kept.begin() + static_cast<std::ptrdiff_t>(tail))
      tail = kept.size();
  }
};

void append_added(std::string& out, const BackVocabulary& tokens, const Places& places) {
  bool first = true;
  for (std::size_t id = 0; id < places.kept.size(); ++id) {
    if (!places.kept[id] || !tokens.is_added(id)) continue;
    out += fmt::format("{}\n    {{\"id\": {}, \"content\": ", first ? "" : ",", id);
    append_json(out, tokens.text(id));
    out += fmt::format(
        R"(, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": {}}})",
        tokens.type(id) == TokenType::Control);
    first = false;
  }
  out += first ? "" : "\n  ";
}

void append_vocabulary(std::string& out, const BackVocabulary& tokens, const Places& places) {
  bool first = true;
  for (std::size_t id = 0; id < places.tail; ++id) {
    if (!places.kept[id]) continue;
    out += first ? "\n      " : ",\n      ";
    append_json(out, tokens.text(id));
    out += fmt::format(": {}", id);
    first = false;
  }
}

// Merges whose parts or result are no tokens of the vocabulary make the reference refuse the file.
class Merges {
 public:
  Merges(const BackVocabulary& tokens, const Places& places) {
    for (std::size_t id = 0; id < places.tail; ++id)
      if (places.kept[id]) known_.push_back(hash_text(tokens.text(id)));
    std::ranges::sort(known_);
  }

  void append(std::string& out, const MetaArray& merges, std::vector<std::string>& lost) {
    std::uint64_t rank = 0, dropped = 0;
    std::string example;
    for_each(merges, [&](const MetaValue& v) {
      const std::string& merge = std::get<std::string>(v);
      if (is_known(merge)) {
        out += rank == dropped ? "\n      " : ",\n      ";
        append_json(out, merge);
      } else if (dropped++ == 0) {
        example = fmt::format("{} of rank {}", quoted(merge), rank);
      }
      ++rank;
      return true;
    });
    if (dropped > 0)
      lost.push_back(
          fmt::format("tokenizer.json: {} of {} merges left out, since they are no two "
                      "tokens that make a third: {}",
                      dropped, rank, example));
  }

 private:
  bool is_known(const std::string& merge) {
    const std::size_t space = merge.find(' ');
    if (space == merge.npos || merge.find(' ', space + 1) != merge.npos) return false;
    whole_.assign(merge).erase(space, 1);
    const std::string_view text(merge);
    return has(text.substr(0, space)) && has(text.substr(space + 1)) && has(whole_);
  }
  bool has(std::string_view token) const {
    return std::ranges::binary_search(known_, hash_text(token));
  }
  std::vector<std::uint64_t> known_;
  std::string whole_;
};

// TemplateProcessing: where bos, eos and sep go.
std::string template_of(const BackTokenizer& from, bool bos, bool eos) {
  std::string specials;
  const auto special = [&](Special s, int part) {
    const std::uint32_t id = *from.special.of(s);
    const std::string text = json(from.tokens.text(id));
    if (specials.find(text + ": ") == specials.npos)
      specials += fmt::format(R"({}{}: {{"id": {}, "ids": [{}], "tokens": [{}]}})",
                              specials.empty() ? "" : ", ", text, text, id, text);
    return fmt::format(R"({{"SpecialToken": {{"id": {}, "type_id": {}}}}})", text, part);
  };
  const auto separator = from.special.of(Special::Sep)   ? std::optional(Special::Sep)
                         : from.special.of(Special::Eos) ? std::optional(Special::Eos)
                                                         : std::nullopt;
  const auto sequence = [&](char name, int part) {
    std::string out;
    if (part == 1 && from.add_sep.value_or(false) && separator)
      out = special(*separator, part) + ", ";
    else if (bos && (part == 0 || from.add_sep.has_value()))
      out = special(Special::Bos, part) + ", ";
    out += fmt::format(R"({{"Sequence": {{"id": "{}", "type_id": {}}}}})", name, part);
    return out + (eos ? ", " + special(Special::Eos, part) : "");
  };
  const std::string a = sequence('A', 0), b = sequence('B', 1);
  return fmt::format(
      R"({{"type": "TemplateProcessing", "single": [{}], "pair": [{}, {}], "special_tokens": {{{}}}}})",
      a, a, b, specials);
}

std::string post_processor(const BackTokenizer& from, const BackPre& pre,
                           std::vector<std::string>& lost) {
  static constexpr std::string_view kBytes =
      R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true})";
  bool bos = from.add_bos.value_or(pre.adds_bos), eos = from.add_eos.value_or(false);
  const auto check = [&](bool& wanted, Special s, std::string_view name) {
    if (wanted && !from.special.of(s)) {
      lost.push_back(
          fmt::format("tokenizer.json: texts get no {} token, since the metadata asks for "
                      "one and names none",
                      name));
      wanted = false;
    }
  };
  check(bos, Special::Bos, "bos");
  check(eos, Special::Eos, "eos");
  if (!bos && !eos) return std::string(kBytes);
  return fmt::format(R"({{"type": "Sequence", "processors": [{}, {}]}})", kBytes,
                     template_of(from, bos, eos));
}

}  // namespace

std::string back_tokenizer_json(const BackTokenizer& from, const BackPre& pre,
                                const MetaArray& merges, std::vector<std::string>& lost) {
  const Places places(from.tokens);
  std::string out = R"({
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [)";
  append_added(out, from.tokens, places);
  out += fmt::format(R"(],
  "normalizer": {},
  "pre_tokenizer": {},
  "post_processor": {},
  "decoder": {{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": {},
    "vocab": {{)",
                     pre.nfc ? R"({"type": "NFC"})" : "null", pre.pre_tokenizer,
                     post_processor(from, pre, lost), pre.ignore_merges);
  append_vocabulary(out, from.tokens, places);
  out += "\n    },\n    \"merges\": [";
  Merges(from.tokens, places).append(out, merges, lost);
  out += "\n    ]\n  }\n}\n";
  return out;
}

}  // namespace wtool
