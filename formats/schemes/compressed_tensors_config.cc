// The quantization_config of a model, as far as reading compressed-tensors needs it.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/schemes/compressed_tensors.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/text.h"

namespace wtool::compressed_tensors {
namespace {

using nlohmann::json;

// How a group's weights are quantised; nullopt: not at all, or in no way that we know.
std::optional<WeightArgs> args_of(const json& group, std::string_view name,
                                  const std::string& where, Diagnostics& faults) {
  const json* weights = member(group, "weights");
  if (!weights) return std::nullopt;
  WeightArgs out;
  const json* bits = member(*weights, "num_bits");
  if (!bits || !bits->is_number_unsigned() || bits->get<std::uint64_t>() < 1 ||
      bits->get<std::uint64_t>() > kMaxBits) {
    faults.report(kAgrees, where, kNowhere,
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
  if ((strategy.empty() || strategy == "group" || strategy == "tensor_group") && size &&
      size->is_number_unsigned())
    out.group = size->get<std::uint64_t>();
  const json* block = member(*weights, "block_structure");
  if (strategy == "block" && block && block->is_array() && block->size() == 2) {
    out.block_rows = count_of(&(*block)[0]).value_or(0);
    out.block_cols = count_of(&(*block)[1]).value_or(0);
  }
  if (const json* targets = member(group, "targets"); targets && targets->is_array())
    for (const json& t : *targets)
      if (t.is_string()) out.targets.push_back(t.get<std::string>());
  return out;
}

}  // namespace

ConfigKind read_config(const Model& model, Diagnostics& faults, Config& config) {
  const auto found = QuantizationConfig::of(model, faults);
  if (!found) return ConfigKind::None;
  config.where = found->where;
  config.method = found->method;
  const json* groups = member(found->body, "config_groups");
  if (found->method.empty() ? groups == nullptr : found->method != "compressed-tensors")
    return ConfigKind::Foreign;
  if (groups && groups->is_object())
    for (const auto& [name, group] : groups->items())
      if (auto args = args_of(group, name, config.where, faults)) {
        const json* weights = member(group, "weights");
        const bool is_float = text_of(member(*weights, "type")) == "float";
        (is_float ? config.floats : config.groups).push_back(std::move(*args));
      }
  if (const json* ignore = member(found->body, "ignore"); ignore && ignore->is_array())
    for (const json& name : *ignore)
      if (name.is_string()) config.ignore.push_back(name.get<std::string>());
  return ConfigKind::Ours;
}

}  // namespace wtool::compressed_tensors
