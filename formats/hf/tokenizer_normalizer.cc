#include "formats/hf/tokenizer_normalizer.h"

#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>

#include "formats/schemes/quantization_config.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/trust/base64.h"

namespace wtool {
namespace {

using Json = nlohmann::json;

// Calls visit(part) for what is no sequence.
template <class Visit>
void each_part(const Json& part, Visit visit) {
  for (const std::string_view key : {"normalizers", "pretokenizers"})
    if (const Json* list = member(part, key); list && list->is_array())
      for (const Json& p : *list) each_part(p, visit);
  if (const auto type = text_of(member(part, "type")); !type.empty() && type != "Sequence")
    visit(part, type);
}

std::string_view pattern_of(const Json& part, std::string_view kind) {
  const Json* pattern = member(part, "pattern");
  return pattern ? text_of(member(*pattern, kind)) : std::string_view();
}

bool removes_extra_spaces(const Json& part, std::string_view type) {
  if (type == "WhitespaceSplit") return true;
  const std::string_view regex = pattern_of(part, "Regex");
  return type == "Replace" && (regex == " {2,}" || regex == R"(\s+)") &&
         text_of(member(part, "content")) == " ";
}

// llama.cpp refuses a table that is shorter than the length with which it begins.
Buffer checked_charsmap(Buffer bytes, std::string_view file) {
  if (bytes.empty()) return bytes;
  const std::uint64_t announced = bytes.size() < 4 ? 0 : load<std::uint32_t>(bytes);
  if (bytes.size() < 4 || announced + 4 >= bytes.size())
    throw Error(Fault::BadFile,
                fmt::format("precompiled_charsmap has {} bytes, but announces a table of {}",
                            bytes.size(), announced))
        .in(file);
  return bytes;
}

}  // namespace

bool begins_with_space(const Json& part) {
  bool found = false;
  each_part(part, [&](const Json& p, std::string_view type) {
    if (type == "Prepend") found |= text_of(member(p, "prepend")) == "\u2581";
    if (type != "Metaspace") return;
    const std::string_view scheme = text_of(member(p, "prepend_scheme"));
    found |= scheme.empty() ? flag_of(member(p, "add_prefix_space"), true) : scheme != "never";
  });
  return found;
}

void add_normalizer_flags(const Json& normalizer, Metadata& meta) {
  constexpr std::string_view kLowercase = "tokenizer.ggml.normalizer.lowercase",
                             kStripAccents = "tokenizer.ggml.normalizer.strip_accents";
  each_part(normalizer, [&](const Json& part, std::string_view type) {
    const auto copy = [&](std::string_view from, std::string_view to) {
      if (const Json* value = member(part, from); value && value->is_boolean())
        meta.set(to, value->get<bool>());
    };
    if (type == "Lowercase") meta.set(kLowercase, true);
    if (type == "StripAccents") meta.set(kStripAccents, true);
    if (type == "BertNormalizer") {
      copy("lowercase", kLowercase);
      copy("strip_accents", kStripAccents);
    }
  });
}

void note_normalizer(const TokenizerJson& json, std::vector<std::string>& notes) {
  static constexpr std::array<std::string_view, 4> kHandled{"NFC", "Lowercase", "StripAccents",
                                                            "BertNormalizer"};
  each_part(json.normalizer, [&](const Json&, std::string_view type) {
    if (std::ranges::find(kHandled, type) == kHandled.end())
      notes.push_back(fmt::format("{}: the normalizer {} is left out: llama.cpp has none like it",
                                  json.file, quoted(type)));
  });
}

UnigramHabits unigram_habits(const TokenizerJson& json) {
  UnigramHabits out;
  std::optional<Buffer> table = Buffer();
  const auto look = [&](const Json& part, std::string_view type) {
    out.remove_extra_spaces |= removes_extra_spaces(part, type);
    if (type == "Precompiled") table = from_base64(text_of(member(part, "precompiled_charsmap")));
  };
  each_part(json.normalizer, look);
  each_part(json.pre_tokenizer, look);
  out.space_prefix = begins_with_space(json.pre_tokenizer) || begins_with_space(json.normalizer);
  if (!table) throw Error(Fault::BadFile, "precompiled_charsmap is not base64").in(json.file);
  out.charsmap = checked_charsmap(std::move(*table), json.file);
  return out;
}

UnigramHabits unigram_habits(const SentencePieceModel& model, std::string_view file) {
  return {model.add_dummy_prefix, model.remove_extra_whitespaces,
          checked_charsmap(to_buffer(model.charsmap), file)};
}

MetaArray byte_array(Buffer bytes) {
  const std::uint64_t size = bytes.size();
  return {MetaType::U8, size, {from_memory("tokenizer", std::move(bytes)), 0, size}};
}

}  // namespace wtool
