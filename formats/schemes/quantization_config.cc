#include "formats/schemes/quantization_config.h"

#include <array>

#include <fmt/format.h>

#include "lib/base/json_reader.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using nlohmann::json;

// The longest config.json known, with every module of a large mixture of experts in its ignore
// list, has about 1 MB. Values cost the parser up to 20 times their text.
constexpr std::uint64_t kMaxConfigBytes = std::uint64_t{4} << 20;

constexpr std::string_view kKey = "quantization_config", kOldKey = "compression_config",
                           kTextModel = "text_config";  // of a model that also sees or hears

// Files that are a quantization_config and nothing else, and whose it is if it does not say.
struct OwnFile {
  std::string_view name, method;
};
constexpr std::array kOwnFiles{OwnFile{"quantize_config.json", "gptq"},
                               OwnFile{"quant_config.json", "awq"}};
constexpr std::string_view kModelOptFile = "hf_quant_config.json";

// nullopt if it is no JSON, which is for others to complain about.
std::optional<json> parse(const std::string& where, const std::string& text, Diagnostics& faults) {
  try {
    // First without a tree: nesting is bounded there.
    std::string copy = text;
    JsonReader reader(copy);
    reader.skip();
    reader.finish();
    return json::parse(text);
  } catch (const JsonFault&) {
    faults.note(where, fmt::format("not JSON, so no {} is known", kKey));
    return std::nullopt;
  } catch (const json::exception&) {
    faults.note(where, fmt::format("not JSON, so no {} is known", kKey));
    return std::nullopt;
  }
}

struct Document {
  std::string where;
  json root;
};
std::optional<Document> read_side(const Model& model, std::string_view name, Diagnostics& faults) {
  const SideFile* side = model.side_file(name);
  if (!side) return std::nullopt;
  const std::string& where = side->content->name();
  if (side->content->size() > kMaxConfigBytes) {
    faults.note(where, fmt::format("{} bytes are too many to look for a {} in",
                                   side->content->size(), kKey));
    return std::nullopt;
  }
  const Buffer bytes = read_all({side->content, 0, side->content->size()});
  auto root = parse(where, std::string(as_text(bytes)), faults);
  if (!root) return std::nullopt;
  return Document{where, std::move(*root)};
}

const json* inside(const json& root) {
  for (const std::string_view key : {kKey, kOldKey})
    if (const json* found = member(root, key)) return found;
  const json* text_model = member(root, kTextModel);
  return text_model ? member(*text_model, kKey) : nullptr;
}

std::optional<QuantizationConfig> made(std::string where, const json* body,
                                       std::string_view otherwise = {}) {
  if (!body || !body->is_object()) return std::nullopt;
  const std::string_view method = text_of(member(*body, "quant_method"));
  return QuantizationConfig{std::move(where), *body, lower(method.empty() ? otherwise : method)};
}

}  // namespace

const json* member(const json& of, std::string_view key) {
  if (!of.is_object()) return nullptr;
  const auto at = of.find(std::string(key));
  return at == of.end() || at->is_null() ? nullptr : &*at;
}

std::string_view text_of(const json* value) {
  return value && value->is_string() ? std::string_view(value->get_ref<const std::string&>())
                                     : std::string_view();
}

std::optional<std::uint64_t> count_of(const json* value) {
  if (!value || !value->is_number_unsigned()) return std::nullopt;
  return value->get<std::uint64_t>();
}

bool flag_of(const json* value, bool otherwise) {
  return value && value->is_boolean() ? value->get<bool>() : otherwise;
}

std::optional<QuantizationConfig> QuantizationConfig::of(const Model& model, Diagnostics& faults) {
  const bool beside = model.side_file("config.json") != nullptr;
  if (const auto config = read_side(model, "config.json", faults))
    if (auto found = made(config->where, inside(config->root))) return found;
  for (const OwnFile& own : kOwnFiles)
    if (const auto config = read_side(model, own.name, faults))
      if (auto found = made(config->where, &config->root, own.method)) return found;
  if (const auto config = read_side(model, kModelOptFile, faults))
    if (auto found = made(config->where, member(config->root, "quantization"), "modelopt"))
      return found;
  const std::string_view text = model.catalog.meta.text(kKey);
  if (beside || text.empty() || text.size() > kMaxConfigBytes) return std::nullopt;
  const std::string where = fmt::format("{}: metadata '{}'", model.path, kKey);
  const auto root = parse(where, std::string(text), faults);
  return root ? made(where, &*root) : std::nullopt;
}

std::string_view QuantizationConfig::excluded_by(std::string_view module) const {
  static constexpr std::array<std::string_view, 5> kLists{"ignore", "modules_to_not_convert",
                                                          "ignored_layers", "llm_int8_skip_modules",
                                                          "exclude_modules"};
  for (const std::string_view key : kLists)
    if (const json* list = member(body, key); list && list->is_array())
      for (const json& name : *list)
        if (text_of(&name) == module) return key;
  return {};
}

const QuantizationConfig* LazyConfig::get() {
  if (!read_) {
    // What is odd about the file itself has been said by the scheme that always looks.
    Diagnostics quiet(Diagnostics::Mode::Collect);
    config_ = QuantizationConfig::of(model_, quiet);
    read_ = true;
  }
  return config_ ? &*config_ : nullptr;
}

}  // namespace wtool
