// config.json from GGUF's keys: a table of rows for each model type, and what rows can't say.
#include "formats/hf/back_config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/hf/back_rope.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using Json = nlohmann::ordered_json;

enum class As : std::uint8_t { Count, Real };
struct Row {
  std::string_view key;  // without "{arch}."
  std::string_view name;
  As as;
  // JSON to write if the key is absent: what llama.cpp takes then. Empty: the key is required.
  std::string_view otherwise = {};
};
// What is in no GGUF file since the class, as llama.cpp computes it, has one possibility; written
// where transformers' own default is another, or was in some version.
struct Constant {
  std::string_view name, json;
};
enum class HeadDim : std::uint8_t {
  IfTold,  // written if the metadata has it
  Always,  // the class's default is not hidden_size / num_attention_heads
  Never,   // the class knows no other than that
};
enum class Biases : std::uint8_t {
  Option,  // attention_bias says whether there are any
  Fixed,   // the class has those that it has
};
struct ModelType {
  std::string_view name;
  std::span<const Row> rows;
  std::span<const Constant> constants;
  HeadDim head_dim = HeadDim::IfTold;
  Biases biases = Biases::Fixed;
  bool partial_rotary = false;         // the class can rotate a part of each head
  std::uint64_t query_27b_layers = 0;  // of gemma: see query_scale()
};

constexpr Row kEmbedding{"embedding_length", "hidden_size", As::Count},
    kFeedForward{"feed_forward_length", "intermediate_size", As::Count},
    kBlocks{"block_count", "num_hidden_layers", As::Count},
    kHeads{"attention.head_count", "num_attention_heads", As::Count},
    kContext{"context_length", "max_position_embeddings", As::Count},
    kRms{"attention.layer_norm_rms_epsilon", "rms_norm_eps", As::Real},
    kTheta{"rope.freq_base", "rope_theta", As::Real, "10000.0"},
    kExperts{"expert_count", "num_experts", As::Count},
    kExpertsUsed{"expert_used_count", "num_experts_per_tok", As::Count},
    kExpertSize{"expert_feed_forward_length", "moe_intermediate_size", As::Count},
    kWindow{"attention.sliding_window", "sliding_window", As::Count},
    kMaybeWindow{"attention.sliding_window", "sliding_window", As::Count, "null"};

// What all models have, in this order, and what is a model's own.
template <typename... Rows>
consteval auto common_and(Rows... own) {
  return std::array{kEmbedding, kFeedForward, kBlocks, kHeads, kContext, kRms, own...};
}
constexpr auto kPlainRows = common_and(kTheta);
constexpr auto kWindowRows = common_and(kTheta, kMaybeWindow);
constexpr auto kMixtralRows = common_and(kTheta, kMaybeWindow, kExpertsUsed,
                                         Row{"expert_count", "num_local_experts", As::Count});
constexpr auto kQwen3MoeRows = common_and(kTheta, kExpertsUsed, kExperts, kExpertSize);
constexpr auto kQwen2MoeRows = common_and(
    kTheta, kExpertsUsed, kExperts, kExpertSize,
    Row{"expert_shared_feed_forward_length", "shared_expert_intermediate_size", As::Count});
constexpr auto kGemma2Rows = common_and(
    kTheta, kWindow, Row{"attn_logit_softcapping", "attn_logit_softcapping", As::Real, "50.0"},
    Row{"final_logit_softcapping", "final_logit_softcapping", As::Real, "30.0"});
constexpr auto kGemma3Rows =
    common_and(Row{"rope.freq_base", "rope_theta", As::Real, "1000000.0"},
               Row{"rope.freq_base_swa", "rope_local_base_freq", As::Real, "10000.0"}, kWindow,
               Row{"attention.sliding_window_pattern", "sliding_window_pattern", As::Count, "6"},
               Row{"final_logit_softcapping", "final_logit_softcapping", As::Real, "null"});
constexpr auto kGraniteRows =
    common_and(kTheta, Row{"attention.scale", "attention_multiplier", As::Real},
               Row{"embedding_scale", "embedding_multiplier", As::Real},
               Row{"residual_scale", "residual_multiplier", As::Real},
               Row{"logit_scale", "logits_scaling", As::Real});

constexpr Constant kSilu{"hidden_act", "\"silu\""}, kNoWindow{"use_sliding_window", "false"},
    kTanh{"hidden_activation", "\"gelu_pytorch_tanh\""}, kEveryLayer{"decoder_sparse_step", "1"},
    kNoDense{"mlp_only_layers", "[]"};
constexpr std::array kSiluOnly{kSilu};
constexpr std::array kQwenConstants{kSilu, kNoWindow};
constexpr std::array kQwen2MoeConstants{kSilu, kNoWindow, kEveryLayer, kNoDense,
                                        Constant{"norm_topk_prob", "false"}};
constexpr std::array kQwen3MoeConstants{kSilu, kNoWindow, kEveryLayer, kNoDense,
                                        Constant{"norm_topk_prob", "true"}};
constexpr std::array kGemmaConstants{Constant{"hidden_act", "\"gelu_pytorch_tanh\""}, kTanh};
constexpr std::array kGemma3Constants{kTanh, Constant{"attn_logit_softcapping", "null"}};

constexpr std::array kModelTypes{
    ModelType{"llama", kPlainRows, kSiluOnly, HeadDim::IfTold, Biases::Option},
    ModelType{"mistral", kWindowRows, kSiluOnly},
    ModelType{"mixtral", kMixtralRows, kSiluOnly},
    ModelType{"smollm3", kPlainRows, kSiluOnly, HeadDim::IfTold, Biases::Option},
    ModelType{"granite", kGraniteRows, kSiluOnly, HeadDim::Never, Biases::Option},
    ModelType{"qwen2", kPlainRows, kQwenConstants},
    ModelType{"qwen2_moe", kQwen2MoeRows, kQwen2MoeConstants, HeadDim::Never},
    ModelType{"qwen3", kPlainRows, kQwenConstants, HeadDim::Always, Biases::Option},
    ModelType{"qwen3_moe", kQwen3MoeRows, kQwen3MoeConstants, HeadDim::Always, Biases::Option},
    ModelType{"gemma", kPlainRows, kGemmaConstants, HeadDim::Always, Biases::Option},
    ModelType{"gemma2", kGemma2Rows, kGemmaConstants, HeadDim::Always, Biases::Option, false, 46},
    ModelType{"gemma3_text", kGemma3Rows, kGemma3Constants, HeadDim::Always, Biases::Option, false,
              62},
    ModelType{"phi3", kWindowRows, kSiluOnly, HeadDim::Never, Biases::Fixed, true}};

const ModelType& model_type_of(std::string_view name) {
  const auto it = std::ranges::find(kModelTypes, name, &ModelType::name);
  if (it == kModelTypes.end())
    throw Error(Fault::Unsupported,
                fmt::format("no config.json is known for models of type {}", quoted(name)));
  return *it;
}

class Config {
 public:
  Config(BackKeys& keys, const BackFacts& facts, std::vector<std::string>& lost)
      : keys_(keys), facts_(facts), lost_(lost), type_(model_type_of(facts.model_type)) {}

  std::string text(std::uint64_t vocabulary, const SpecialIds& special) {
    require();
    out_["architectures"] = Json::array({std::string(facts_.hf_class)});
    out_["model_type"] = std::string(facts_.model_type);
    rows();
    head_dim();
    rope_scaling();
    for (const Constant& c : type_.constants) out_[std::string(c.name)] = Json::parse(c.json);
    out_["vocab_size"] = size_of_vocabulary(vocabulary);
    ids(special);
    out_["tie_word_embeddings"] = facts_.tied;
    out_["torch_dtype"] = std::string(facts_.dtype);
    peculiar();
    return out_.dump(2) + "\n";
  }

 private:
  // All that is missing at once.
  void require() {
    std::string missing;
    std::size_t count = 0;
    for (const Row& row : type_.rows)
      if (row.otherwise.empty() && !number(row)) {
        missing += fmt::format("{}'{}'", count++ == 0 ? "" : ", ", keys_.own(row.key));
      }
    if (count > 0)
      throw Error(Fault::BadFile,
                  fmt::format("metadata lacks {} {}, which config.json of {} needs",
                              count == 1 ? "the key" : "the keys", missing, facts_.model_type));
  }

  std::optional<Json> number(const Row& row) {
    const std::string key = keys_.own(row.key);
    if (row.as == As::Count) {
      const auto n = keys_.count(key);
      return n ? std::optional<Json>(*n) : std::nullopt;
    }
    const auto x = keys_.real(key);
    return x ? std::optional<Json>(*x) : std::nullopt;
  }

  void rows() {
    for (const Row& row : type_.rows) {
      const auto value = number(row);
      out_[std::string(row.name)] = value ? *value : Json::parse(row.otherwise);
    }
    const std::uint64_t heads = out_["num_attention_heads"];
    out_["num_key_value_heads"] = keys_.count(keys_.own("attention.head_count_kv")).value_or(heads);
    if (type_.biases == Biases::Option) out_["attention_bias"] = facts_.attention_bias;
    if (type_.name == "llama") out_["mlp_bias"] = facts_.mlp_bias;
  }

  void head_dim() {
    const std::uint64_t hidden = out_["hidden_size"], heads = out_["num_attention_heads"];
    const auto key_length = keys_.count(keys_.own("attention.key_length")),
               value_length = keys_.count(keys_.own("attention.value_length"));
    if (heads == 0 || (!key_length && hidden % heads != 0))
      throw Error(Fault::BadFile, fmt::format("'{}' is {}, which {} heads can't share",
                                              keys_.own("embedding_length"), hidden, heads));
    dim_ = key_length.value_or(hidden / heads);
    if (value_length.value_or(dim_) != dim_)
      throw unsupported(
          fmt::format("has keys of {} elements and values of {}", dim_, *value_length));
    if (type_.head_dim == HeadDim::Never && (hidden % heads != 0 || dim_ != hidden / heads))
      throw unsupported(fmt::format("has heads of {} elements, not {} / {}", dim_, hidden, heads));
    if (type_.head_dim == HeadDim::Always || (type_.head_dim == HeadDim::IfTold && key_length))
      out_["head_dim"] = dim_;

    const auto rotated = keys_.count(keys_.own("rope.dimension_count"));
    if (!rotated || *rotated == dim_) return;
    if (!type_.partial_rotary || dim_ == 0)
      throw unsupported(fmt::format("rotates {} elements of {}", *rotated, dim_));
    out_["partial_rotary_factor"] = static_cast<double>(*rotated) / static_cast<double>(dim_);
  }

  Error unsupported(const std::string& what) const {
    return Error(Fault::Unsupported,
                 fmt::format("the file's model {}: config.json of {} can't say so", what,
                             facts_.model_type));
  }

  void rope_scaling() {
    const std::string key = keys_.own("rope.scaling.type");
    const std::string* type = keys_.text(key);
    const auto plain = keys_.real(keys_.own("rope.scale_linear"));  // files of 2023
    if (!facts_.rope_freqs.empty()) return llama3();
    if (!facts_.rope_long.empty() || !facts_.rope_short.empty()) return longrope();
    if (plain && *plain != 1) return simple("linear", *plain);
    if (!type || *type == "none") return;
    if (*type != "linear" && *type != "yarn")
      throw Error(Fault::Unsupported, fmt::format("'{}' is {}, and there are no tensors of factors",
                                                  key, quoted(*type)));
    const auto factor = keys_.real(keys_.own("rope.scaling.factor"));
    if (!factor)
      throw Error(Fault::BadFile, fmt::format("'{}' is {} and '{}' is missing", key, quoted(*type),
                                              keys_.own("rope.scaling.factor")));
    simple(*type, *factor);
    if (*type == "yarn") yarn();
  }

  void simple(const std::string& type, double factor) {
    out_["rope_scaling"] = {{"rope_type", type}, {"factor", factor}};
  }

  void yarn() {
    Json& scaling = out_["rope_scaling"];
    if (const auto n = keys_.count(keys_.own("rope.scaling.original_context_length")))
      scaling["original_max_position_embeddings"] = *n;
    struct Pair {
      std::string_view key, name;
    };
    for (const Pair& p :
         {Pair{"ext_factor", "extrapolation_factor"}, Pair{"attn_factor", "attention_factor"},
          Pair{"beta_fast", "beta_fast"}, Pair{"beta_slow", "beta_slow"}})
      if (const auto x = keys_.real(keys_.own(fmt::format("rope.scaling.yarn_{}", p.key))))
        scaling[std::string(p.name)] = *x;
  }

  void llama3() {
    if (facts_.rope_freqs.size() * 2 != dim_)
      throw Error(Fault::BadFile,
                  fmt::format("tensor 'rope_freqs.weight' has {} factors for heads of "
                              "{} elements",
                              facts_.rope_freqs.size(), dim_));
    if (std::ranges::all_of(facts_.rope_freqs, [](float f) { return f == 1; })) return;
    const auto rope = llama3_rope_of(facts_.rope_freqs, out_["rope_theta"]);
    if (!rope) {
      lost_.emplace_back(
          "rope_scaling: rope_freqs.weight is not what any scaling of type llama3 gives; left out, "
          "so that transformers will compute other positions");
      return;
    }
    lost_.push_back("rope_scaling: " + rope->assumed);
    out_["rope_scaling"] = {{"factor", rope->factor},
                            {"low_freq_factor", rope->low},
                            {"high_freq_factor", rope->high},
                            {"original_max_position_embeddings", rope->original},
                            {"rope_type", "llama3"}};
  }

  // Phi3Config wants these three keys and no other; the factor of attention follows from lengths.
  void longrope() {
    if (type_.name != "phi3") throw unsupported("has rope factors for long and short texts");
    const auto list = [&](std::string_view which, std::span<const float> factors) {
      const auto rotated = keys_.count(keys_.own("rope.dimension_count")).value_or(dim_);
      if (factors.size() * 2 != rotated)
        throw Error(Fault::BadFile,
                    fmt::format("tensor 'rope_factors_{}.weight' has {} factors for {} "
                                "rotated elements",
                                which, factors.size(), rotated));
      Json values = Json::array();
      for (float f : factors) {
        if (!std::isfinite(f))
          throw Error(Fault::BadFile,
                      fmt::format("tensor 'rope_factors_{}.weight' holds {}", which, f));
        values.push_back(std::strtod(fmt::format("{}", f).c_str(), nullptr));
      }
      return values;
    };
    out_["rope_scaling"] = {{"type", "longrope"},
                            {"long_factor", list("long", facts_.rope_long)},
                            {"short_factor", list("short", facts_.rope_short)}};
    const auto told = keys_.real(keys_.own("rope.scaling.attn_factor"));
    const double length = out_["max_position_embeddings"],
                 original = static_cast<double>(original_length());
    const double scale = length / original,
                 computed = scale > 1 ? std::sqrt(1 + std::log(scale) / std::log(original)) : 1;
    if (told && !(std::abs(*told - computed) < 1e-3))
      lost_.push_back(fmt::format("rope_scaling: '{}' is {}, transformers computes {:.6g}",
                                  keys_.own("rope.scaling.attn_factor"), *told, computed));
  }

  std::uint64_t original_length() {
    return keys_.count(keys_.own("rope.scaling.original_context_length"))
        .value_or(out_["max_position_embeddings"].get<std::uint64_t>());
  }

  // The embedding has a row for each token, whatever the key says.
  std::uint64_t size_of_vocabulary(std::uint64_t tokens) {
    const std::string key = keys_.own("vocab_size");
    const auto told = keys_.count(key);
    if (tokens == 0) {
      if (!told)
        throw Error(Fault::BadFile,
                    fmt::format("metadata lacks both '{}' and 'tokenizer.ggml.tokens'", key));
      return *told;
    }
    if (told && *told != tokens)
      lost_.push_back(
          fmt::format("vocab_size: {}, the number of tokens; '{}' is {}", tokens, key, *told));
    return tokens;
  }

  // null where there is none: defaults of some classes are ids of the vocabulary they had first.
  // The others have no place elsewhere if there is no tokenizer.json.
  void ids(const SpecialIds& special) {
    const auto set = [&](const std::string& name, Special s) {
      const auto id = special.of(s);
      out_[name] = id ? Json(*id) : Json(nullptr);
    };
    set("bos_token_id", Special::Bos);
    set("eos_token_id", Special::Eos);
    set("pad_token_id", Special::Pad);
    for (Special s : {Special::Unk, Special::Sep, Special::Cls, Special::Mask})
      if (special.of(s))
        set(fmt::format("{}_token_id", kSpecialNames[static_cast<std::size_t>(s)].name), s);
  }

  void peculiar() {
    if (type_.query_27b_layers > 0) out_["query_pre_attn_scalar"] = query_scale();
    if (type_.name == "mistral" && out_["sliding_window"].is_null())
      lost_.emplace_back(
          "sliding_window: null; GGUF does not keep that of Mistral 7B v0.1, and llama.cpp uses "
          "none");
    if (type_.name != "phi3") return;
    out_["original_max_position_embeddings"] = original_length();
    if (out_["sliding_window"] == 0) out_["sliding_window"] = nullptr;
  }

  // As llama.cpp scales queries: by the size of a head but for the 27B models, which it knows by
  // the number of their layers.
  std::uint64_t query_scale() {
    const std::uint64_t hidden = out_["hidden_size"], heads = out_["num_attention_heads"],
                        layers = out_["num_hidden_layers"];
    return layers == type_.query_27b_layers ? hidden / heads : dim_;
  }

  BackKeys& keys_;
  const BackFacts& facts_;
  std::vector<std::string>& lost_;
  const ModelType& type_;
  Json out_ = Json::object();
  std::uint64_t dim_ = 0;  // of a head
};

}  // namespace

std::span<const std::string_view> back_model_types() noexcept {
  static constexpr auto kNames = [] {
    std::array<std::string_view, kModelTypes.size()> names;
    for (std::size_t i = 0; i < names.size(); ++i) names[i] = kModelTypes[i].name;
    return names;
  }();
  return kNames;
}

std::string back_config(BackKeys& keys, const BackFacts& facts, std::uint64_t vocabulary,
                        const SpecialIds& special, std::vector<std::string>& lost) {
  return Config(keys, facts, lost).text(vocabulary, special);
}

std::string back_generation_config(BackKeys& keys, const SpecialIds& special,
                                   std::vector<std::string>& lost) {
  Json out = Json::object();
  const auto set = [&](std::string_view key, const char* name, As as) {
    const std::string full = fmt::format("general.sampling.{}", key);
    if (as == As::Count) {
      if (const auto n = keys.count(full)) out[name] = *n;
    } else if (const auto x = keys.real(full)) {
      out[name] = *x;
    }
  };
  set("temp", "temperature", As::Real);
  set("top_k", "top_k", As::Count);
  set("top_p", "top_p", As::Real);
  set("min_p", "min_p", As::Real);
  set("penalty_repeat", "repetition_penalty", As::Real);
  if (out.empty() && special.more_ends.empty()) return {};

  Json whole = Json::object();
  if (const auto id = special.of(Special::Bos)) whole["bos_token_id"] = *id;
  if (const auto id = special.of(Special::Eos)) {
    whole["eos_token_id"] = *id;
    if (!special.more_ends.empty()) {
      Json ends = Json::array({*id});
      for (std::uint32_t end : special.more_ends) ends.push_back(end);
      whole["eos_token_id"] = ends;
    }
  }
  if (const auto id = special.of(Special::Pad)) whole["pad_token_id"] = *id;
  if (!out.empty()) {
    const bool sampled = !out.contains("temperature") || out["temperature"] != 0.0;
    whole["do_sample"] = sampled;
    lost.push_back(fmt::format(
        "do_sample: {}, to go with the values for sampling; GGUF has no such key", sampled));
    whole.update(out);
  }
  return whole.dump(2) + "\n";
}

}  // namespace wtool
