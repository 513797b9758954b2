#include "formats/hf/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "formats/schemes/quantization_config.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using nlohmann::json;

json parsed(const SideFile& file) {
  if (file.content->size() > HfConfig::kMaxBytes)
    throw Error(Fault::BadFile, fmt::format("{} bytes are too many for a config (at most {})",
                                            file.content->size(), HfConfig::kMaxBytes))
        .in(file.content->name());
  const Buffer bytes = read_all({file.content, 0, file.content->size()});
  try {
    std::string text(as_text(bytes));
    JsonReader reader(text);  // bounds the depth
    reader.skip();
    reader.finish();
  } catch (const JsonFault& f) {
    throw Error(Fault::BadFile, fmt::format("{} (byte {})", f.text(), f.at))
        .in(file.content->name());
  }
  json root = json::parse(as_text(bytes), nullptr, false);
  if (!root.is_object())
    throw Error(Fault::BadFile, "is not a JSON object").in(file.content->name());
  return root;
}

// Models that also see or hear keep their text model's configuration in an object of its own.
constexpr std::array<std::string_view, 5> kInner{"text_config", "llm_config", "lm_config",
                                                 "language_config", "thinker_config"};

std::string first_class(const json& root) {
  const json* list = member(root, "architectures");
  if (!list || !list->is_array() || list->empty()) return {};
  return std::string(text_of(&list->front()));
}

std::string lift_text_config(json& root) {
  std::string hf_class = first_class(root);
  for (const std::string_view key : kInner) {
    const json* inner = member(root, key);
    if (!inner || !inner->is_object()) continue;
    if (const json* deeper = member(*inner, "text_config"); deeper && deeper->is_object())
      inner = deeper;
    if (const std::string own = first_class(*inner); !own.empty()) hf_class = own;
    const json copy = *inner;
    root.update(copy);
    break;
  }
  return hf_class;
}

std::string known_classes() {
  std::vector<std::string_view> names;
  for (const Architecture* a : all_architectures())
    names.insert(names.end(), a->classes.begin(), a->classes.end());
  return fmt::format("known: {}", fmt::join(names, ", "));
}

std::string_view trimmed(std::string_view s) {
  while (s.starts_with(' ')) s.remove_prefix(1);
  while (s.ends_with(' ')) s.remove_suffix(1);
  return s;
}

}  // namespace

HfConfig HfConfig::of(const Model& model, const std::string& arch) {
  const SideFile* file = model.side_file("config.json");
  if (!file)
    throw Error(Fault::BadFile, "there is no config.json, which says what model the tensors are of")
        .in(model.path)
        .hint("--as-is keeps names and makes no model that runs");
  HfConfig out;
  out.where_ = file->content->name();
  out.json_ = parsed(*file);
  out.class_ = lift_text_config(out.json_);
  if (!arch.empty()) out.class_ = arch;
  if (out.class_.empty())
    throw Error(Fault::BadFile, "\"architectures\" names no class")
        .in(out.where_)
        .hint("--as-is keeps names and makes no model; --arch CLASS says which it is; " +
              known_classes());
  out.architecture_ = architecture_of_class(out.class_);
  if (!out.architecture_)
    throw Error(Fault::Unsupported, fmt::format("architecture {} is not known", quoted(out.class_)))
        .in(out.where_)
        .hint("--as-is keeps names and makes no model; --arch CLASS takes it for another; " +
              known_classes());
  for (const std::string_view key : out.architecture_->ignored_keys) out.json_.erase(key);
  for (const DefaultRow& d : out.architecture_->defaults)
    if (!member(out.json_, d.key)) {
      if (!d.text.empty())
        out.json_[std::string(d.key)] = d.text;
      else if (d.value == std::floor(d.value))
        out.json_[std::string(d.key)] = static_cast<std::int64_t>(d.value);
      else
        out.json_[std::string(d.key)] = d.value;
    }
  out.settle_rope();
  return out;
}

// "rope_parameters" of transformers 5 or "rope_scaling" before; either may have parts for layers of
// full and of sliding attention. What stood beside them goes into them: 'rope' and 'rope_local'.
void HfConfig::settle_rope() {
  const json* given = find("rope_parameters");
  if (!given) given = find("rope_scaling");
  json rope = given && given->is_object() ? *given : json::object();
  json local = json::object();
  const auto first = [&](std::initializer_list<std::string_view> keys) -> const json* {
    for (const std::string_view key : keys)
      if (const json* value = find(key)) return value;
    return nullptr;
  };
  if (const json* full = member(rope, "full_attention"); full && full->is_object()) {
    if (const json* sliding = member(rope, "sliding_attention"); sliding && sliding->is_object())
      local = *sliding;
    rope = json(*full);
  } else if (const json* theta = first({"local_rope_theta", "rope_local_theta", "rope_theta_local",
                                        "swa_rope_theta", "rope_local_base_freq"})) {
    local["rope_theta"] = *theta;
  }
  const auto fill = [&](const char* key, const json* value) {
    if (value && !member(rope, key)) rope[key] = *value;
  };
  fill("rope_theta", first({"global_rope_theta", "rope_global_theta", "rope_theta_global",
                            "rope_theta", "rotary_emb_base"}));
  fill("rope_type", member(rope, "type"));
  fill("partial_rotary_factor", first({"partial_rotary_factor", "rope_pct", "rope_percent"}));
  fill("original_max_position_embeddings", first({"original_max_position_embeddings"}));
  json_["rope"] = std::move(rope);
  json_["rope_local"] = std::move(local);
}

const json* HfConfig::find(std::string_view dotted) const {
  const json* at = &json_;
  while (!dotted.empty()) {
    const std::size_t dot = dotted.find('.');
    at = member(*at, dotted.substr(0, dot));
    if (!at) return nullptr;
    dotted = dot == dotted.npos ? std::string_view() : dotted.substr(dot + 1);
  }
  return at;
}

std::optional<double> HfConfig::operand(std::string_view word) const {
  if (word.front() >= '0' && word.front() <= '9') {
    double value = 0;
    std::from_chars(word.data(), word.data() + word.size(), value);
    return value;
  }
  const json* value = find(word);
  if (!value) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>() ? 1 : 0;
  if (!value->is_number() || !std::isfinite(value->get<double>()))
    throw Error(Fault::BadFile, fmt::format("{} is {}, not a number", quoted(word),
                                            value->is_number() ? "infinite" : value->type_name()))
        .in(where_);
  return value->get<double>();
}

std::optional<double> HfConfig::evaluate(std::string_view alternative) const {
  std::optional<double> result;
  char sign = 0;
  while (!alternative.empty()) {
    const std::size_t space = alternative.find(' ');
    const std::string_view word = alternative.substr(0, space);
    alternative = space == alternative.npos ? std::string_view() : alternative.substr(space + 1);
    if (word.size() == 1 && std::string_view("+-*/").find(word) != std::string_view::npos) {
      sign = word.front();
      continue;
    }
    const auto value = operand(word);
    if (!value) return std::nullopt;
    if (!result) {
      result = value;
    } else if (sign == '/') {
      if (*value == 0)
        throw Error(Fault::BadFile, fmt::format("{} is 0, which divides nothing", quoted(word)))
            .in(where_);
      result = std::floor(std::trunc(*result) / *value);
    } else {
      result = sign == '+' ? *result + *value : sign == '-' ? *result - *value : *result * *value;
    }
  }
  return result;
}

std::optional<double> HfConfig::number(Formula formula) const {
  for (;;) {
    const std::size_t bar = formula.find('|');
    if (const auto value = evaluate(trimmed(formula.substr(0, bar)))) return value;
    if (bar == formula.npos) return std::nullopt;
    formula = formula.substr(bar + 1);
  }
}

std::optional<std::uint64_t> HfConfig::count(Formula formula) const {
  const auto value = number(formula);
  if (!value) return std::nullopt;
  constexpr double kMost = 4294967295.0;
  if (*value < 0 || *value > kMost || *value != std::floor(*value))
    throw Error(Fault::BadFile,
                fmt::format("{} is {}, not a count of 32 bits", trimmed(formula), *value))
        .in(where_);
  return static_cast<std::uint64_t>(*value);
}

std::uint64_t HfConfig::need(Formula formula) const {
  if (const auto value = count(formula)) return *value;
  throw Error(Fault::BadFile, fmt::format("does not say {}", formula)).in(where_);
}

}  // namespace wtool
