// The quantization_config of a model, as far as reading compressed-tensors needs it.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/schemes/compressed_tensors.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/text.h"

namespace wtool::compressed_tensors {
namespace {

using nlohmann::json;

constexpr Rule kConfigRule{"compressed-tensors.config"};

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
  const auto found = QuantizationConfig::of(model, faults);
  if (!found) return ConfigKind::None;
  const json* groups = member(found->body, "config_groups");
  if (found->method.empty() ? groups == nullptr : found->method != "compressed-tensors")
    return ConfigKind::Foreign;
  config.where = found->where;
  if (groups && groups->is_object())
    for (const auto& [name, group] : groups->items())
      if (auto args = args_of(group, name, config.where, faults))
        config.groups.push_back(std::move(*args));
  return ConfigKind::Ours;
}

}  // namespace wtool::compressed_tensors
