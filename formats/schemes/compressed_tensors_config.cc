// The quantization_config of a model, as far as reading compressed-tensors needs it.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/json_reader.h"
#include "formats/schemes/compressed_tensors.h"
#include "lib/base/text.h"

namespace wtool::compressed_tensors {
namespace {

using nlohmann::json;

constexpr Rule kConfigRule{"compressed-tensors.config"};

// The longest config.json known, with every module of a large mixture of experts in its ignore
// list, has about 1 MB. Values cost the parser up to 20 times their text.
constexpr std::uint64_t kMaxConfigBytes = std::uint64_t{4} << 20;

constexpr std::string_view kKey = "quantization_config", kOldKey = "compression_config",
                           kTextModel = "text_config";  // of a model that also sees or hears

struct ConfigText {
  std::string where, text;
  bool whole = false;  // a config.json, not the quantization_config alone
};

std::optional<ConfigText> find_text(const Model& model, Diagnostics& faults) {
  if (const SideFile* side = model.side_file("config.json")) {
    if (side->content->size() > kMaxConfigBytes) {
      faults.note(side->content->name(), fmt::format("{} bytes are too many to look for a {} in",
                                                     side->content->size(), kKey));
      return std::nullopt;
    }
    const Buffer bytes = read_all({side->content, 0, side->content->size()});
    return ConfigText{side->content->name(), std::string(as_text(bytes)), true};
  }
  const std::string_view text = model.catalog.meta.text(kKey);
  if (text.empty() || text.size() > kMaxConfigBytes) return std::nullopt;
  return ConfigText{fmt::format("{}: metadata '{}'", model.path, kKey), std::string(text), false};
}

// nullopt if it is no JSON, which is for others to complain about.
std::optional<json> parse(const ConfigText& from, Diagnostics& faults) {
  try {
    // First without a tree: nesting is bounded there.
    std::string copy = from.text;
    JsonReader reader(copy);
    reader.skip();
    reader.finish();
    return json::parse(from.text);
  } catch (const JsonFault&) {
    faults.note(from.where, fmt::format("not JSON, so no {} is known", kKey));
    return std::nullopt;
  } catch (const json::exception&) {
    faults.note(from.where, fmt::format("not JSON, so no {} is known", kKey));
    return std::nullopt;
  }
}

const json* member(const json& of, std::string_view key) {
  if (!of.is_object()) return nullptr;
  const auto at = of.find(std::string(key));
  return at == of.end() || at->is_null() ? nullptr : &*at;
}
std::string_view text_of(const json* value) {
  return value && value->is_string() ? std::string_view(value->get_ref<const std::string&>())
                                     : std::string_view();
}

const json* find_quantisation(const json& root, bool whole) {
  if (!whole) return root.is_object() ? &root : nullptr;
  for (const std::string_view key : {kKey, kOldKey})
    if (const json* found = member(root, key)) return found;
  const json* text_model = member(root, kTextModel);
  return text_model ? member(*text_model, kKey) : nullptr;
}

// A group whose weights are integers; the others are not for this scheme to read.
std::optional<WeightArgs> args_of(const json& group, std::string_view name,
                                  const std::string& where, Diagnostics& faults) {
  const json* weights = member(group, "weights");
  if (!weights || text_of(member(*weights, "type")) == "float") return std::nullopt;
  WeightArgs out;
  const json* bits = member(*weights, "num_bits");
  if (!bits || !bits->is_number_unsigned() || bits->get<std::uint64_t>() < 1 ||
      bits->get<std::uint64_t>() > kMaxBits) {
    faults.report(kConfigRule, where, 0,
                  fmt::format("{}: num_bits is {}, not 1 to {}", quoted(name),
                              bits ? printable(bits->dump(-1, ' ', true)).substr(0, 40) : "missing",
                              kMaxBits));
    return std::nullopt;
  }
  out.bits = bits->get<unsigned>();
  const json* symmetric = member(*weights, "symmetric");
  out.symmetric = !symmetric || !symmetric->is_boolean() || symmetric->get<bool>();
  const json* size = member(*weights, "group_size");
  const std::string_view strategy = text_of(member(*weights, "strategy"));
  if ((strategy.empty() || strategy == "group") && size && size->is_number_unsigned())
    out.group = size->get<std::uint64_t>();
  if (const json* targets = member(group, "targets"); targets && targets->is_array())
    for (const json& t : *targets)
      if (t.is_string()) out.targets.push_back(t.get<std::string>());
  return out;
}

}  // namespace

ConfigKind read_config(const Model& model, Diagnostics& faults, Config& config) {
  const auto from = find_text(model, faults);
  if (!from) return ConfigKind::None;
  const auto root = parse(*from, faults);
  const json* found = root ? find_quantisation(*root, from->whole) : nullptr;
  if (!found) return ConfigKind::None;
  const std::string_view method = text_of(member(*found, "quant_method"));
  const json* groups = member(*found, "config_groups");
  if (method.empty() ? groups == nullptr : method != "compressed-tensors")
    return ConfigKind::Foreign;
  config.where = from->where;
  if (groups && groups->is_object())
    for (const auto& [name, group] : groups->items())
      if (auto args = args_of(group, name, config.where, faults))
        config.groups.push_back(std::move(*args));
  return ConfigKind::Ours;
}

}  // namespace wtool::compressed_tensors
