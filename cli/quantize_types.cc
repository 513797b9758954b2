#include "cli/quantize_types.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/recipe_rules.h"
#include "cli/rewrite.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/model/selector.h"
#include "lib/numeric/quantizer.h"

namespace wtool {
namespace {

using Json = nlohmann::ordered_json;

Choice cast(DType to) {
  return {Choice::What::Cast, to, {}, true};
}

// ---- Schemes of safetensors

struct SchemeType {
  std::string_view name;
  Levels levels;
  unsigned bits;
  bool activations;
};
constexpr SchemeType kSchemeTypes[] = {
    {"int8", Levels::Integers, 8, false}, {"int7", Levels::Integers, 7, false},
    {"int6", Levels::Integers, 6, false}, {"int5", Levels::Integers, 5, false},
    {"int4", Levels::Integers, 4, false}, {"int3", Levels::Integers, 3, false},
    {"int2", Levels::Integers, 2, false}, {"w8a8", Levels::Integers, 8, true},
    {"fp8", Levels::Fp8, 8, true},        {"nvfp4", Levels::Nvfp4, 4, false},
    {"mxfp4", Levels::Mxfp4, 4, false},   {"mxfp8", Levels::Mxfp8, 8, false},
    {"nf4", Levels::Nf4, 4, false},
};
const SchemeType* find_scheme_type(std::string_view name) {
  const auto it = std::ranges::find(kSchemeTypes, name, &SchemeType::name);
  return it == std::end(kSchemeTypes) ? nullptr : &*it;
}

constexpr std::string_view kChannel = "channel";

std::uint64_t group_size(const std::string& text) {
  if (text == kChannel || text == "-1" || text == "0") return 0;
  std::uint64_t n = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (code != std::errc() || end != text.data() + text.size() || n == 0 || n > (1u << 20))
    throw Error(Fault::Usage, fmt::format("--group-size {} is no size", quoted(text)))
        .hint("such as 128, 64, 32, or channel: one scale for a row");
  return n;
}
ScaleMethod scale_method(const std::string& name) {
  if (name.empty() || name == "search") return ScaleMethod::Search;
  if (name == "optimal") return ScaleMethod::Optimal;
  if (name == "rtn") return ScaleMethod::Rtn;
  throw Error(Fault::Usage, fmt::format("unknown method {}", quoted(name)))
      .hint("rtn, search or optimal; with GGUF output exact or best");
}

Choice scheme_choice(const SchemeType& type, const TypeOptions& o) {
  Choice out{Choice::What::Scheme, DType::F32, {}, o.group_size.empty()};
  SchemeOptions& s = out.scheme;
  s.levels = type.levels;
  s.bits = type.bits;
  s.activations = type.activations;
  s.block = o.block && type.levels == Levels::Fp8;
  const bool packed_integers = type.levels == Levels::Integers && !type.activations;
  s.asymmetric = o.asymmetric && packed_integers;
  if (!o.group_size.empty() && packed_integers) s.group = group_size(o.group_size);
  s.source_arithmetic = !o.compat.empty();
  s.method = s.source_arithmetic ? ScaleMethod::Rtn : scale_method(o.method);
  s.signed_scales = o.signed_scales && type.levels == Levels::Integers;
  return out;
}

Error unwritable(std::string_view type) {
  return Error(Fault::Usage, fmt::format("{} can be read, but this version cannot write it", type))
      .hint("it can write " + writable_types());
}

Error unknown(const std::string& name, bool gguf) {
  std::vector<std::string_view> names{"keep", "f16", "bf16", "f32"};
  if (gguf) {
    names.insert(names.end(), {"int8", "int4"});
    for (const Mix& m : all_mixes()) names.push_back(m.name);
    for (const DTypeInfo& t : all_dtypes())
      if (t.kind == Kind::Block) names.push_back(t.name);
  } else {
    for (const SchemeType& t : kSchemeTypes) names.push_back(t.name);
  }
  Error error(Fault::Usage, fmt::format("unknown type {}", quoted(name)));
  const auto near = nearest(lower(name), names);
  if (!near.empty()) return error.hint(fmt::format("did you mean {}?", quoted(near)));
  return error.hint(
      gguf ? fmt::format("f16, bf16, f32, {}; or a mix such as q4_k_m", writable_types())
           : fmt::format("{}; --to gguf for others", fmt::join(names, ", ")));
}

// Of one tensor, or of all that the policy does not keep. The meaning of a name depends on the
// container: int8 is Q8_0 in GGUF.
Choice choice_named(const std::string& name, const TypeOptions& o, bool gguf) {
  const std::string s = lower(name);
  if (s == "keep") return {};
  if (gguf && (s == "int8" || s == "int4")) return cast(s == "int8" ? DType::Q8_0 : DType::Q4_0);
  if (const SchemeType* t = gguf ? nullptr : find_scheme_type(s)) return scheme_choice(*t, o);
  const auto type = parse_dtype(s);
  if (type == DType::F16 || type == DType::BF16 || type == DType::F32) return cast(*type);
  if (type && gguf && info(*type).kind == Kind::Block) {
    if (find_quantizer(*type)) return cast(*type);
    throw unwritable(name_of(*type));
  }
  if (const Mix* mix = find_mix(s); mix && !type)
    throw Error(Fault::Usage, fmt::format("{} is a mix of types, for a whole model", quoted(name)))
        .hint(gguf ? fmt::format("a tensor takes one type, such as {}", name_of(mix->base))
                   : "--to gguf with --type writes it");
  if (!type) throw unknown(name, gguf);
  throw Error(Fault::Usage, fmt::format("cannot quantize to {} in {}", quoted(name),
                                        gguf ? "GGUF" : "safetensors"))
      .hint(gguf ? "keep, f16, bf16, f32, " + writable_types()
                 : "keep, int8, int4, fp8, nvfp4, f16, bf16, f32, …; --to gguf for ggml's types");
}

void check_writable(const Mix& mix) {
  std::vector<std::string_view> missing;
  const auto need = [&](DType type) {
    const bool fine = info(type).kind != Kind::Block || find_quantizer(type);
    if (!fine && std::ranges::find(missing, name_of(type)) == missing.end())
      missing.push_back(name_of(type));
  };
  need(mix.base);
  for (const MixRule& r : mix.rules)
    if (r.part != Part::None) need(r.type);
  if (missing.size() == 1 && missing[0] == mix.name) throw unwritable(missing[0]);
  if (!missing.empty())
    throw Error(Fault::Usage, fmt::format("{} needs {}, which this version can read but not write",
                                          mix.name, fmt::join(missing, " and ")))
        .hint("it can write " + writable_types());
}

// ---- Rules

Override rule_of(const TypeRule& r, std::string label, const Model& model, const TypeOptions& o,
                 bool gguf, bool allow_unmatched) {
  return {std::move(label), choice_named(r.type, o, gguf),
          matching(model.tensors, r.pattern, allow_unmatched),
          std::ranges::find(model.tensors, r.pattern, &LogicalTensor::name) != model.tensors.end()};
}

std::string_view trimmed(std::string_view s) {
  const auto first = s.find_first_not_of(" \t\r");
  if (first == s.npos) return {};
  return s.substr(first, s.find_last_not_of(" \t\r") - first + 1);
}

// A line without its comment: what begins with '#' at its start or after a blank.
std::string_view without_comment(std::string_view line) {
  for (std::size_t at = line.find('#'); at != line.npos; at = line.find('#', at + 1))
    if (at == 0 || line[at - 1] == ' ' || line[at - 1] == '\t') return line.substr(0, at);
  return line;
}

std::vector<Override> read_recipe(const TypeOptions& o, const Model& model, bool gguf,
                                  bool allow_unmatched) {
  constexpr std::uint64_t kMost = std::uint64_t{16} << 20;
  const SourcePtr file = open_file(o.recipe);
  if (file->size() > kMost)
    throw Error(Fault::Usage, fmt::format("{} bytes are too many for a recipe", file->size()))
        .in(o.recipe);
  const Buffer bytes = read_all({file, 0, file->size()});
  return recipe_rules(as_text(bytes), o, model, gguf, allow_unmatched);
}

// For whatever is the output, or the embedding of tokens, in this model.
Override rule_for(Part part, const std::string& label, Choice choice, const Model& model,
                  NameStyle style) {
  Override rule{label, choice, std::vector<bool>(model.tensors.size())};
  bool any = false;
  for (std::size_t i = 0; i < model.tensors.size(); ++i)
    any |= rule.matches[i] = part_of(model.tensors[i].name, style) == part;
  if (any) return rule;
  const bool output = part == Part::Output;
  throw Error(Fault::Usage, fmt::format("{}: the model has no {} tensor", label,
                                        output ? "output" : "token embedding"))
      .hint(output ? "models without one use the token embedding: --token-embedding-type"
                   : "-T 'PATTERN=TYPE' names any tensor");
}

// ---- Facts

void read_config_facts(const Model& model, MixFacts& facts) {
  const SideFile* file = model.side_file("config.json");
  if (!file) return;
  const Json config = read_config(*file);
  const auto text = config.find("text_config");  // of models that see or hear
  const Json& of = text != config.end() && text->is_object() ? *text : config;
  const auto number = [&](std::initializer_list<const char*> keys, std::uint64_t& to) {
    for (const char* key : keys)
      if (const auto v = of.find(key); v != of.end() && v->is_number_unsigned())
        return void(to = v->get<std::uint64_t>());
  };
  if (const auto type = of.find("model_type"); type != of.end() && type->is_string())
    facts.architecture = type->get<std::string>();
  number({"num_hidden_layers", "n_layer"}, facts.layers);
  number({"num_attention_heads", "n_head"}, facts.heads);
  facts.heads_kv = facts.heads;
  number({"num_key_value_heads", "num_kv_heads"}, facts.heads_kv);
  number({"num_local_experts", "num_experts", "n_routed_experts"}, facts.experts);
}

// Layers and experts by the numbers in names; heads that share by the rows of Q and K.
void guess_facts(const Model& model, NameStyle style, MixFacts& facts) {
  constexpr std::uint64_t kMost = 1u << 20;  // more is no number of a layer
  std::uint64_t q = 0, k = 0, layers = 0, experts = 0;
  for (const LogicalTensor& t : model.tensors) {
    const std::uint64_t rows = t.shape.size() == 2 ? t.shape[0] : 0;
    const Part part = part_of(t.name, style);
    if (part == Part::Query && q == 0) q = rows;
    if (part == Part::Key && k == 0) k = rows;
    if (const auto layer = layer_of(t.name); layer && *layer < kMost)
      layers = std::max(layers, *layer + 1);
    constexpr std::string_view kExperts = "experts.";
    const auto at = t.name.find(kExperts);
    if (at == t.name.npos) continue;
    const auto expert = layer_of(t.name.substr(at + kExperts.size()));
    if (expert && *expert < kMost) experts = std::max(experts, *expert + 1);
  }
  if (facts.layers == 0) facts.layers = layers;
  if (facts.experts == 0) facts.experts = experts;
  if (facts.heads == 0 && k > 0 && q % k == 0) {
    facts.heads = q / k;
    facts.heads_kv = 1;
  }
}

}  // namespace

std::vector<Override> recipe_rules(std::string_view text, const TypeOptions& o, const Model& model,
                                   bool gguf, bool allow_unmatched) {
  std::vector<Override> rules;
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trimmed(without_comment(text.substr(at, end - at)));
    at = end + 1;
    const std::string where = fmt::format("{}:{}", o.recipe, ++number);
    if (line.empty()) continue;
    try {
      TypeRule r = parse_type_rule(line);
      r = {std::string(trimmed(r.pattern)), std::string(trimmed(r.type))};
      const std::string label = fmt::format("{} {}={}", where, r.pattern, r.type);
      rules.push_back(rule_of(r, label, model, o, gguf, allow_unmatched));
    } catch (Error& e) {
      throw e.in(where);
    }
  }
  return rules;
}

std::string writable_types() {
  std::vector<std::string_view> names;
  for (const DTypeInfo& t : all_dtypes())
    if (find_quantizer(t.id)) names.push_back(t.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

void check_scheme_options(const TypeOptions& o, bool gguf) {
  const auto refuse = [](std::string text, std::string hint) {
    throw Error(Fault::Usage, std::move(text)).hint(std::move(hint));
  };
  if (gguf) {
    if (!o.method.empty() && o.method != "exact" && o.method != "best")
      refuse(fmt::format("unknown method {} for GGUF output", quoted(o.method)), "exact or best");
    const std::pair<bool, const char*> not_here[] = {{o.block, "--block"},
                                                     {o.asymmetric, "--asym"},
                                                     {o.signed_scales, "--signed-scales"},
                                                     {!o.group_size.empty(), "--group-size"},
                                                     {!o.compat.empty(), "--compat"},
                                                     {!o.scheme.empty(), "--scheme"}};
    for (const auto& [given, name] : not_here)
      if (given)
        refuse(fmt::format("{} is for safetensors output", name), "--type chooses a ggml type");
    return;
  }
  if (o.method == "exact" || o.method == "best")
    refuse(fmt::format("--method {} is for ggml's types, so for GGUF output", o.method),
           "--to gguf; or rtn, search, optimal");
  const ScaleMethod method = scale_method(o.method);
  if (!o.compat.empty() && o.compat != "compressed-tensors")
    refuse(fmt::format("unknown --compat {}", quoted(o.compat)), "compressed-tensors");
  if (!o.compat.empty() && !o.method.empty() && method != ScaleMethod::Rtn)
    refuse(fmt::format("--compat {} rounds to nearest: --method {} is another way", o.compat,
                       o.method),
           "leave one of them out");
  const bool rtn = !o.compat.empty() || method == ScaleMethod::Rtn;
  if (o.signed_scales && rtn)
    refuse("--signed-scales needs --method search or optimal", "leave --method out to search");
  if (o.signed_scales && o.asymmetric)
    refuse("--signed-scales and --asym exclude each other",
           "with zero points the sign of a scale gains nothing");
  if (scheme_for(o) == "bitsandbytes" && method == ScaleMethod::Optimal)
    refuse("--method optimal is not for NF4, whose scales are quantized again",
           "--method search, the default, or rtn");
  const bool floats = o.fp8 || o.nvfp4 || o.mxfp4 || o.mxfp8 || o.nf4;
  if (floats && o.types.empty() && o.recipe.empty() && (o.asymmetric || !o.group_size.empty()))
    refuse(fmt::format("{} is for integers", o.asymmetric ? "--asym" : "--group-size"),
           "--int4, --int8, --bits N; the groups of floats are part of their format");
  if (o.asymmetric && (o.int8 || o.bits == 8) && scheme_for(o) == "compressed-tensors")
    refuse("engines load 8 bits with zero points as compressed-tensors, and then fail on them",
           "leave --asym out, or --scheme gptq");
  if (o.signed_scales && o.w8a8)
    refuse("--signed-scales is not for --w8a8: engines compute wrong results in int8 with them",
           "--int8 or --int4 with 16-bit activations");
  if (o.block && !o.fp8) refuse("--block is for --fp8", "--fp8 --block: a scale for 128 x 128");
}

std::string_view scheme_for(const TypeOptions& o) {
  if (!o.scheme.empty()) return o.scheme;
  return o.nf4 || lower(o.output_type) == "nf4" ? "bitsandbytes" : "compressed-tensors";
}

Asked asked_for(const TypeOptions& o, bool gguf) {
  std::vector<std::string> names;
  if (o.fp16) names.push_back("f16");
  if (o.bf16) names.push_back("bf16");
  if (o.int8) names.push_back("int8");
  if (o.int4) names.push_back("int4");
  if (o.bits != 0) names.push_back(fmt::format("int{}", o.bits));
  if (o.w8a8) names.push_back("w8a8");
  if (o.fp8) names.push_back("fp8");
  if (o.nvfp4) names.push_back("nvfp4");
  if (o.mxfp4) names.push_back("mxfp4");
  if (o.mxfp8) names.push_back("mxfp8");
  if (o.nf4) names.push_back("nf4");
  if (!o.type.empty()) names.push_back(lower(o.type));
  if (names.size() > 1)
    throw Error(Fault::Usage, fmt::format("choose one of {}", fmt::join(names, ", ")))
        .hint("-T PATTERN=TYPE gives some tensors another type");
  if (o.pure && o.type.empty())
    throw Error(Fault::Usage, "--pure is for --type").hint("--type q4_k_m --pure: all of it q4_k");
  if (o.bits != 0 && (o.bits < 2 || o.bits > 8))
    throw Error(Fault::Usage, fmt::format("--bits {} is not 2 to 8", o.bits));
  if (names.empty()) {
    if (o.types.empty() && o.recipe.empty() && o.output_type.empty() && o.embedding_type.empty())
      throw Error(Fault::Usage, "no type given")
          .hint("--int8, --int4, --fp8, --nvfp4, --bf16, --fp16, or --type q4_k_m (GGUF)");
    return {{}, nullptr, "mixed"};
  }
  if (!o.type.empty() && !gguf)
    throw Error(Fault::Usage, "--type is for GGUF output")
        .hint("for safetensors: --int8, --int4, --fp8, --nvfp4; or --to gguf");
  if (gguf && o.type.empty() && names[0] != "int8" && names[0] != "int4" &&
      find_scheme_type(names[0]))
    throw Error(Fault::Usage,
                fmt::format("--{} is a safetensors scheme", o.bits != 0 ? "bits" : names[0]))
        .hint(o.mxfp4 || o.nvfp4 ? "for GGUF: --type " + names[0] : "for GGUF: --int8 (q8_0)");
  if (const Mix* mix = o.type.empty() ? nullptr : find_mix(o.type)) {
    check_writable(*mix);
    return {{}, mix, names[0]};
  }
  return {choice_named(names[0], o, gguf), nullptr, names[0]};
}

std::vector<Override> rules_of(const TypeOptions& o, const Model& model, NameStyle style, bool gguf,
                               bool allow_unmatched) {
  if (o.leave_output && !o.output_type.empty())
    throw Error(Fault::Usage, "choose one of --leave-output-tensor, --output-tensor-type");
  std::vector<Override> rules;
  if (!o.recipe.empty()) rules = read_recipe(o, model, gguf, allow_unmatched);
  for (const std::string& text : o.types) {
    const TypeRule r = parse_type_rule(text);
    rules.push_back(
        rule_of(r, fmt::format("-T {}={}", r.pattern, r.type), model, o, gguf, allow_unmatched));
  }
  const auto add = [&](Part part, const std::string& label, const Choice& choice) {
    rules.push_back(rule_for(part, label, choice, model, style));
  };
  if (!o.output_type.empty())
    add(Part::Output, "--output-tensor-type " + lower(o.output_type),
        choice_named(o.output_type, o, gguf));
  if (o.leave_output) add(Part::Output, "--leave-output-tensor", {});
  if (!o.embedding_type.empty())
    add(Part::Embedding, "--token-embedding-type " + lower(o.embedding_type),
        choice_named(o.embedding_type, o, gguf));
  return rules;
}

MixFacts mix_facts(const Model& model, NameStyle style) {
  MixFacts facts;
  if (!model.catalog.meta.text("general.architecture").empty())
    read_mix_facts(model.catalog.meta, facts);
  else
    read_config_facts(model, facts);
  guess_facts(model, style, facts);
  return facts;
}

}  // namespace wtool
