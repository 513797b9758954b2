#include "formats/hf/gguf_keys.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "formats/schemes/quantization_config.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"

namespace wtool {
namespace {

using nlohmann::json;

constexpr std::string_view kGeneral = "general.";

class KeyWriter {
 public:
  KeyWriter(const Model& model, const HfConfig& config, std::uint32_t file_type, Metadata& meta)
      : model_(model), config_(config), file_type_(file_type), meta_(meta) {}

  void rows(std::span<const KeyRow> rows) {
    for (const KeyRow& row : rows) one(row);
  }
  void finish() const {
    if (missing_.empty()) return;
    throw Error(Fault::BadFile, fmt::format("lacks what llama.cpp cannot do without: {}",
                                            fmt::join(missing_, "; ")))
        .in(config_.where());
  }

 private:
  void set(std::string_view key, MetaValue value) {
    meta_.set(key.starts_with(kGeneral) ? std::string(key)
                                        : fmt::format("{}.{}", config_.architecture().name, key),
              std::move(value));
  }

  void one(const KeyRow& row) {
    if (!row.left_out_if.empty() && config_.number(row.left_out_if) == 1) return;
    switch (row.type) {
      case KeyType::U32:
        if (const auto n = config_.count(row.from))
          return set(row.key, static_cast<std::uint32_t>(*n));
        break;
      case KeyType::F32:
        if (const auto x = config_.number(row.from)) return set(row.key, static_cast<float>(*x));
        break;
      case KeyType::Bool: return boolean(row);
      case KeyType::RopeScaling: return rope_scaling(row.key);
      case KeyType::Gating: return gating(row);
      case KeyType::Pooling: return pooling(row.key);
      case KeyType::FileType: return set(row.key, file_type_);
    }
    if (row.required) missing_.push_back(fmt::format("{} (for {})", row.from, row.key));
  }

  // What llama.cpp assumes need not be said, as in the reference: causal, and weights not normed.
  void boolean(const KeyRow& row) {
    const auto value = config_.number(row.from);
    const bool assumed = row.key == "attention.causal";
    if (value && (*value != 0) != assumed) set(row.key, *value != 0);
  }

  std::optional<double> rope(std::string_view key) const {
    return config_.number(fmt::format("rope.{}", key));
  }

  void rope_scaling(std::string_view prefix) {
    if (!prefix.ends_with('.')) return attention_factor(prefix);
    const std::string type = lower(text_of(config_.find("rope.rope_type")));
    const auto put = [&](std::string_view key, std::string_view from) {
      if (const auto x = config_.number(from))
        set(fmt::format("{}{}", prefix, key), static_cast<float>(*x));
    };
    if (type == "linear" || type == "yarn") {
      if (!rope("factor")) {
        missing_.push_back(fmt::format("rope_scaling's factor (of kind {})", type));
        return;
      }
      set(fmt::format("{}type", prefix), type);
      put("factor", "rope.factor");
    }
    if (type == "yarn") {
      set(fmt::format("{}original_context_length", prefix),
          static_cast<std::uint32_t>(
              config_.need("rope.original_max_position_embeddings | max_position_embeddings")));
      put("yarn_ext_factor", "rope.extrapolation_factor");
      put("yarn_attn_factor", "rope.attention_factor | rope.attn_factor");
      put("yarn_beta_fast", "rope.beta_fast");
      put("yarn_beta_slow", "rope.beta_slow");
    } else if (type == "su" || type == "longrope") {
      set(fmt::format("{}type", prefix), std::string("longrope"));
    } else if (!type.empty() && type != "linear" && type != "llama3" && type != "default") {
      // The reference warns of some and writes a file that runs otherwise than the model.
      throw Error(Fault::Unsupported,
                  fmt::format("rope_scaling of kind {} has no form in GGUF", quoted(type)))
          .in(config_.where());
    }
    if ((type == "llama3" && !config_.architecture().rope_freqs) ||
        ((type == "su" || type == "longrope") && !config_.architecture().rope_factors))
      throw Error(Fault::Unsupported, fmt::format("rope_scaling of kind {} is not known of {}",
                                                  type, config_.architecture().name))
          .in(config_.where());
  }

  // Phi-3's longer contexts scale attention by sqrt(1 + ln(s) / ln(original)), s the ratio of both;
  // with yarn, which it had once, by 1 + 0.1 · ln(s).
  void attention_factor(std::string_view key) {
    if (longrope_factors(config_, "long_factor").empty()) return;
    const double original = static_cast<double>(config_.need(
                     "rope.original_max_position_embeddings | max_position_embeddings")),
                 scale = static_cast<double>(config_.need("max_position_embeddings")) / original;
    const std::string type = lower(text_of(config_.find("rope.rope_type")));
    if (type != "su" && type != "longrope" && type != "yarn")
      throw Error(
          Fault::Unsupported,
          fmt::format("factors for long contexts with rope_scaling of kind {}", quoted(type)))
          .in(config_.where());
    const double more = type == "yarn" ? 1 + 0.1 * std::log(scale)
                                       : std::sqrt(1 + std::log(scale) / std::log(original));
    set(key, static_cast<float>(scale > 1 ? more : 1.0));
  }

  void gating(const KeyRow& row) {
    // llama.cpp's LLAMA_EXPERT_GATING_FUNC_TYPE_*.
    constexpr std::array<std::string_view, 4> kFunctions{"none", "softmax", "sigmoid",
                                                         "sqrtsoftplus"};
    for (Formula names = row.from; !names.empty();) {
      const std::size_t bar = names.find(" | ");
      const json* value = config_.find(names.substr(0, bar));
      names = bar == names.npos ? Formula() : names.substr(bar + 3);
      if (!value) continue;
      const auto it = std::find(kFunctions.begin() + 1, kFunctions.end(), text_of(value));
      if (it == kFunctions.end())
        throw Error(Fault::Unsupported,
                    fmt::format("experts are scored by {}, which llama.cpp does "
                                "not know",
                                quoted(value->dump())))
            .in(config_.where())
            .hint("softmax, sigmoid or sqrtsoftplus");
      return set(row.key, static_cast<std::uint32_t>(it - kFunctions.begin()));
    }
  }

  // Of sentence-transformers: modules.json names the folder whose config.json says how tokens
  // become one vector.
  void pooling(std::string_view key) {
    const SideFile* modules = model_.side_file("modules.json");
    if (!modules) return;
    const json list = read(modules->content);
    if (!list.is_array()) return;
    for (const json& m : list) {
      const std::string folder(text_of(member(m, "path")));
      if (!text_of(member(m, "type")).ends_with("Pooling")) continue;
      if (const auto why = unsafe_path(folder))
        throw Error(Fault::BadFile, fmt::format("path {}: {}", quoted(folder), *why))
            .in(modules->content->name());
      const std::string root = folder_of(modules->content->name());
      const json how = read(open_file(joined(joined(root, folder), "config.json")));
      const std::string mode(text_of(member(how, "pooling_mode")));
      // llama.cpp's LLAMA_POOLING_TYPE_*.
      struct Mode {
        std::string_view flag, name;
        std::uint32_t number;
      };
      constexpr std::array<Mode, 3> kModes{Mode{"pooling_mode_mean_tokens", "mean", 1},
                                           Mode{"pooling_mode_cls_token", "cls", 2},
                                           Mode{"pooling_mode_lasttoken", "lasttoken", 3}};
      for (const Mode& one : kModes)
        if (flag_of(member(how, one.flag), false) || mode == one.name) return set(key, one.number);
      throw Error(Fault::Unsupported, "pooling is neither mean, nor cls, nor lasttoken")
          .in(joined(joined(root, folder), "config.json"));
    }
  }

  static json read(const SourcePtr& file) {
    if (file->size() > HfConfig::kMaxBytes)
      throw Error(Fault::BadFile, fmt::format("{} bytes are too many for a config (at most {})",
                                              file->size(), HfConfig::kMaxBytes))
          .in(file->name());
    return json::parse(as_text(read_all({file, 0, file->size()})), nullptr, false);
  }

  const Model& model_;
  const HfConfig& config_;
  std::uint32_t file_type_;
  Metadata& meta_;
  std::vector<std::string> missing_;
};

// llama.cpp v0.5.0, src/llama-model.cpp, load_hparams: what it asserts, which ends its process.
void check_experts(const HfConfig& config, const Metadata& meta) {
  const auto of = [&](std::string_view key) {
    return meta.count(fmt::format("{}.{}", config.architecture().name, key)).value_or(0);
  };
  const std::uint64_t all = of("expert_count"), used = of("expert_used_count"),
                      groups = of("expert_group_count"), group = of("expert_group_used_count");
  const auto refuse = [&](std::string text) {
    throw Error(Fault::BadFile, std::move(text)).in(config.where());
  };
  if (all > kMaxExperts)
    refuse(fmt::format("says that there are {} experts, but llama.cpp takes at most {}", all,
                       kMaxExperts));
  if (used > all || (all > 0 && used == 0))
    refuse(fmt::format("says that {} of {} experts are used", used, all));
  if (all == 0 ? groups > 0 : groups >= all || (groups > 1 && all % groups != 0))
    refuse(fmt::format("says that {} experts are in {} groups", all, groups));
  if (groups > 1 && (group == 0 || group >= groups))
    refuse(
        fmt::format("says that {} of {} groups of experts are used, which llama.cpp does not "
                    "take",
                    group, groups));
}

// base^(1/n) with nothing but IEEE arithmetic, which is the same everywhere: bisection.
double root_of(double base, unsigned n) {
  double low = 1, high = std::max(base, 1.0);
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    double power = 1;
    for (unsigned k = 0; k < n && power <= base; ++k) power *= middle;
    (power <= base ? low : high) = middle;
  }
  return low;
}

}  // namespace

void add_architecture_keys(const Model& model, const HfConfig& config, std::uint32_t file_type,
                           Metadata& meta) {
  KeyWriter writer(model, config, file_type, meta);
  for (const KeyTable table : config.architecture().keys) writer.rows(table);
  writer.finish();
  check_experts(config, meta);
}

std::vector<std::string> differences_to_engine(const HfConfig& config) {
  std::vector<std::string> out;
  for (const AssumedRow& row : config.architecture().assumed)
    if (const auto said = config.number(row.config); said && *said != row.value)
      out.push_back(
          fmt::format("config.json says {} {}, but llama.cpp computes as if it were {}: what it "
                      "predicts may differ from the model",
                      row.config, *said, row.value));
  return out;
}

// transformers, modeling_rope_utils.py, _compute_llama3_parameters: waves longer than the original
// context are stretched by the whole factor, short ones not at all, those between by a share.
std::vector<float> llama3_rope_factors(const HfConfig& config) {
  if (!config.architecture().rope_freqs ||
      lower(text_of(config.find("rope.rope_type"))) != "llama3")
    return {};
  constexpr std::uint64_t kMostPairs = 65536;
  const std::uint64_t dims =
      config.need("head_dim | hidden_size / num_attention_heads | n_embd / n_head");
  if (dims == 0 || dims % 2 != 0 || dims / 2 > kMostPairs)
    throw Error(Fault::BadFile, fmt::format("heads of {} dimensions cannot be turned", dims))
        .in(config.where());
  const double base = config.number("rope.rope_theta | 10000").value_or(0),
               factor = config.number("rope.factor | 8").value_or(0),
               low = config.number("rope.low_freq_factor | 1").value_or(0),
               high = config.number("rope.high_freq_factor | 4").value_or(0),
               context = config.number("rope.original_max_position_embeddings | 8192").value_or(0);
  if (!(base >= 1) || !(factor > 0) || !(low > 0) || !(high > low) || !(context > 0))
    throw Error(Fault::BadFile,
                fmt::format("rope_scaling of kind llama3 makes no sense: theta {}, factor {}, "
                            "low_freq_factor {}, high_freq_factor {}, context {}",
                            base, factor, low, high, context))
        .in(config.where());
  const double ratio = root_of(base, static_cast<unsigned>(dims / 2));
  // In f32 from here on, as the reference computes it.
  const auto f = [](double x) { return static_cast<float>(x); };
  std::vector<float> out;
  double power = 1;  // theta^(2i/D)
  for (std::uint64_t i = 0; i < dims / 2; ++i, power *= ratio) {
    const float wave = f(2 * std::numbers::pi) / (1.0f / f(power));
    float value = f(factor);
    if (wave < f(context / high)) {
      value = 1;
    } else if (!(wave > f(context / low))) {
      const float share = (f(context) / wave - f(low)) / f(high - low);
      value = 1.0f / ((1.0f - share) / f(factor) + share);
    }
    out.push_back(value);
  }
  return out;
}

std::vector<float> longrope_factors(const HfConfig& config, std::string_view which) {
  const json* list = config.find(fmt::format("rope.{}", which));
  if (!list) return {};
  const std::uint64_t pairs =
      config.need(
          "rope.partial_rotary_factor * hidden_size / num_attention_heads | "
          "hidden_size / num_attention_heads") /
      2;
  if (!list->is_array() || list->size() != pairs)
    throw Error(Fault::BadFile, fmt::format("{} has {} factors but a head turns {} pairs", which,
                                            list->is_array() ? list->size() : 0, pairs))
        .in(config.where());
  std::vector<float> out;
  for (const json& x : *list) {
    if (!x.is_number())
      throw Error(Fault::BadFile, fmt::format("{} holds {}, not a number", which, x.dump()))
          .in(config.where());
    out.push_back(x.get<float>());
  }
  return out;
}

}  // namespace wtool
