// The mixes of llama.cpp (llama-quant.cpp, release v0.5.0) as tables.
#include "lib/numeric/mix.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/model/selector.h"

namespace wtool {
namespace {

using T = DType;
using F = MixFamily;
using enum Part;

// With 8 experts attention is small beside them, so its output may have more bits.
constexpr When kEight = kExperts8 | kNotFalcon;

// The reference's file types, and what it has none of: one type for everything. Before a mix's own
// rules come those of kFirst, after them those of kLast.
// clang-format off
constexpr Mix kMixes[] = {
    {"f32",   "", 0,  T::F32,   F::Pure},
    {"f16",   "", 1,  T::F16,   F::Pure},
    {"bf16",  "", 32, T::BF16,  F::Pure},
    {"mxfp4", "", 38, T::MXFP4, F::Pure},
    {"nvfp4", "", 39, T::NVFP4, F::Pure},

    {"q8_0", "", 7, T::Q8_0, F::Usual, {{
        {Output, kAlways, T::Q8_0}}}},
    {"q6_k", "", 18, T::Q6_K, F::Usual},
    {"q5_k_m", "q5_k", 17, T::Q5_K, F::Usual, {{
        {Value, kMore, T::Q6_K},
        {Down, kMore, T::Q6_K}}}},
    {"q5_k_s", "", 16, T::Q5_K, F::Usual},
    {"q5_1", "", 9, T::Q5_1, F::Usual},
    {"q5_0", "", 8, T::Q5_0, F::Usual, {{
        {Down, kFirstEighth | kImatrix, T::Q5_1}}}},
    {"q4_k_m", "q4_k", 15, T::Q4_K, F::Usual, {{
        {Value, kMore, T::Q6_K},
        {Down, kFalcon | kFirstSixteenth, T::Q6_K},
        {Down, kFalcon | kMore, T::Q5_K},
        {Down, kNotFalcon | kMore, T::Q6_K},
        {AttnOut, kEight, T::Q5_K}}}},
    {"q4_k_s", "", 14, T::Q4_K, F::Usual, {{
        {Value, kFirst4, T::Q5_K},
        {Down, kNotFalcon | kFirstEighth, T::Q5_K},
        {AttnOut, kEight, T::Q5_K}}}},
    {"iq4_nl", "", 25, T::IQ4_NL, F::Usual, {{
        {Value, kGqa4, T::Q5_K},
        {Down, kNoImatrix | kFirstEighth, T::Q5_K},
        {AttnOut, kEight, T::Q5_K}}}},
    {"iq4_xs", "", 30, T::IQ4_XS, F::Usual, {{
        {Value, kGqa4, T::Q5_K},
        {Down, kNoImatrix | kFirstEighth, T::Q5_K},
        {AttnOut, kEight, T::Q5_K}}}},
    {"q4_1", "", 3, T::Q4_1, F::Usual},
    {"q4_0", "", 2, T::Q4_0, F::Usual, {{
        {Down, kFirstEighth | kImatrix, T::Q4_1}}}},
    {"mxfp4_moe", "", 38, T::MXFP4, F::Experts, {{
        {Output, kAlways, T::Q8_0},
        {Any, kStacked | kNotBailing3, T::MXFP4},
        {Up, kStacked, T::MXFP4},
        {Gate, kStacked, T::MXFP4},
        {Down, kStacked, T::MXFP4},
        {Any, kAlways, T::Q8_0}}}},
    {"q3_k_l", "", 13, T::Q3_K, F::Usual, {{
        {Value, kAlways, T::Q5_K},
        {Down, kFalcon, T::Q4_K},
        {Down, kAlways, T::Q5_K},
        {AttnOut, kFalcon, T::Q4_K},
        {AttnOut, kNotExperts8, T::Q5_K}}}},
    {"q3_k_m", "q3_k", 12, T::Q3_K, F::Usual, {{
        {Value, kFirst2, T::Q5_K},
        {Value, kAlways, T::Q4_K},
        {Down, kFirstSixteenth, T::Q5_K},
        {Down, kNotFalcon, T::Q4_K},
        {Down, kMore, T::Q4_K},
        {AttnOut, kEight, T::Q5_K},
        {AttnOut, kNotFalcon, T::Q4_K}}}},
    {"q3_k_s", "", 11, T::Q3_K, F::Usual, {{
        {AttnOut, kEight, T::Q5_K}}}},
    {"iq3_m", "", 27, T::IQ3_S, F::Usual, {{
        {Value, kAlways, T::Q4_K},
        {Down, kFirstEighth, T::Q4_K},
        {Down, kExperts8 | kMore, T::Q4_K},
        {AttnOut, kEight, T::Q5_K},
        {AttnOut, kNotFalcon, T::Q4_K}}}},
    {"iq3_s", "", 26, T::IQ3_S, F::Usual, {{
        {Value, kGqa4, T::Q4_K},
        {AttnOut, kEight, T::Q5_K}}}},
    {"iq3_xs", "", 22, T::IQ3_S, F::Usual, {{
        {Value, kGqa4, T::Q4_K},
        {Key, kAlways, T::IQ3_XXS},
        {Query, kAlways, T::IQ3_XXS},
        {Gate, kMiddle, T::IQ3_XXS},
        {Up, kMiddle, T::IQ3_XXS},
        {AttnOut, kEight, T::Q5_K}}}},
    {"iq3_xxs", "", 23, T::IQ3_XXS, F::Usual, {{
        {Output, kAlways, T::Q5_K},
        {Embedding, kAlways, T::IQ3_S},
        {Value, kGqa4, T::Q4_K},
        {Value, kNoImatrix, T::IQ3_S},
        {Key, kAlways, T::IQ2_S},
        {Query, kAlways, T::IQ2_S},
        {Down, kNoImatrix | kFirstEighth, T::Q4_K},
        {Down, kNoImatrix, T::Q3_K},
        {AttnOut, kEight, T::Q5_K},
        {AttnOut, kNotFalcon, T::IQ3_S}}}},
    {"q2_k", "", 10, T::Q2_K, F::Usual, {{
        {Value, kGqa4, T::Q4_K},
        {Value, kAlways, T::Q3_K},
        {Down, kAlways, T::Q3_K},
        {AttnOut, kEight, T::Q5_K},
        {AttnOut, kNotFalcon, T::Q3_K}}}},
    {"q2_k_s", "", 21, T::Q2_K, F::Usual, {{
        {Value, kGqa4, T::Q4_K},
        {Down, kFirstEighth, T::Q4_K}}}, true},
    {"q2_0", "", 41, T::Q2_0, F::Usual, {{
        {Embedding, kAlways, T::Q4_K}}}},
    {"tq2_0", "", 37, T::TQ2_0, F::Usual, {{
        {Embedding, kAlways, T::Q4_K}}}},
    {"tq1_0", "", 36, T::TQ1_0, F::Usual, {{
        {Embedding, kAlways, T::Q4_K}}}},
    {"iq2_m", "", 29, T::IQ2_S, F::Low, {{
        {Embedding, kAlways, T::IQ3_S},
        {Value, kAlways, T::IQ3_S},
        {Down, kFirstEighth, T::IQ3_S},
        {AttnOut, kNotExperts8, T::IQ3_S}}}},
    {"iq2_s", "", 28, T::IQ2_XS, F::Low, {{
        {Embedding, kAlways, T::IQ3_S},
        {Value, kAlways, T::IQ3_S},
        {Down, kFirstEighth, T::IQ3_S},
        {AttnOut, kNotExperts8, T::IQ3_S}}}},
    {"iq2_xs", "", 20, T::IQ2_XS, F::Low, {{
        {Embedding, kAlways, T::Q2_K},
        {Value, kAlways, T::Q2_K},
        {Down, kFirstEighth, T::Q2_K}}}},
    {"iq2_xxs", "", 19, T::IQ2_XXS, F::Low, {{
        {Embedding, kAlways, T::Q2_K},
        {Value, kAlways, T::Q2_K},
        {Down, kFirstEighth, T::Q2_K}}}},
    {"iq1_m", "", 31, T::IQ1_M, F::Low, {{
        {Embedding, kAlways, T::Q2_K},
        {Value, kAlways, T::Q2_K},
        {Down, kFirstEighth, T::Q2_K},
        {AttnOut, kNotExperts8, T::IQ2_XXS}}}},
    {"iq1_s", "", 24, T::IQ1_S, F::Low, {{
        {Embedding, kAlways, T::Q2_K},
        {Value, kAlways, T::Q2_K},
        {Down, kFirstEighth, T::Q2_K},
        {AttnOut, kNotExperts8, T::IQ2_XXS}}}},
    {"q1_0", "", 40, T::Q1_0, F::Usual},
};
// clang-format on

constexpr MixRule kFirst[] = {
    {Output, kUsual | kFalcon, T::Q8_0},      {Output, kLow | kFalcon, T::Q8_0},
    {Output, kUsual | kRowMisfit, T::Q8_0},   {Output, kLow | kRowMisfit, T::Q8_0},
    {Value, kUsual | kExperts8, T::Q8_0},     {Key, kUsual | kExperts8, T::Q8_0},
    {Value, kLow | kGqa4OrExperts4, T::Q4_K}, {Key, kLow | kExperts8, T::Q4_K},
    {AttnOut, kLow | kExperts8, T::Q5_K},
};
constexpr MixRule kLast[] = {
    {Output, kUsual, T::Q6_K},
    {Output, kLow, T::Q5_K},
};

// In models of 70 billion parameters 8 heads share a value: more bits for it cost little.
struct Raise {
  DType from, to;
};
constexpr Raise kRaise70B[] = {{T::Q3_K, T::Q5_K}, {T::Q4_K, T::Q5_K}};
struct Large {
  std::string_view architecture;
  std::uint64_t layers;
  bool shares_heads;  // only with fewer key heads than query heads (else it is LLaMA 65B)
};
constexpr Large k70B[] = {
    {"llama", 80, true}, {"deci", 80, false}, {"qwen2", 80, false}, {"olmo", 80, false}};

struct Fallback {
  DType from, to;
};
constexpr Fallback kFallbacks[] = {
    {T::IQ1_S, T::IQ4_NL}, {T::IQ1_M, T::IQ4_NL}, {T::IQ2_XXS, T::IQ4_NL}, {T::IQ2_XS, T::IQ4_NL},
    {T::IQ2_S, T::IQ4_NL}, {T::IQ3_S, T::IQ4_NL}, {T::IQ3_XXS, T::IQ4_NL}, {T::IQ4_XS, T::IQ4_NL},
    {T::Q2_0, T::Q4_0},    {T::Q2_K, T::Q4_0},    {T::Q3_K, T::Q4_0},      {T::TQ1_0, T::Q4_0},
    {T::TQ2_0, T::Q4_0},   {T::Q4_K, T::Q5_0},    {T::Q5_K, T::Q5_1},      {T::Q6_K, T::Q8_0},
};

// ---- Names

// ggml's names: the first that is the whole name, or that it contains.
struct GgmlName {
  std::string_view text;
  bool whole;
  Part part;
};
constexpr GgmlName kGgmlNames[] = {
    {"output.weight", true, Output},
    {"token_embd.weight", true, Embedding},
    {"per_layer_token_embd.weight", true, Embedding},
    {"attn_qkv.weight", false, Value},
    {"attn_kv_b.weight", false, Value},
    {"attn_v.weight", false, Value},
    {"attn_k.weight", false, Key},
    {"attn_q.weight", false, Query},
    {"attn_output.weight", false, AttnOut},
    {"ffn_up", false, Up},
    {"ffn_gate", false, Gate},
    {"ffn_down", false, Down},
};

// Hugging Face's and Meta's: the last dot-separated parts of the name without ".weight".
struct ModuleName {
  std::string_view parts;
  Part part;
};
constexpr ModuleName kModuleNames[] = {
    {"lm_head", Output},
    {"embed_out", Output},
    {"embed_tokens", Embedding},
    {"embed_tokens_per_layer", Embedding},
    {"wte", Embedding},
    {"word_embeddings", Embedding},
    {"tok_embeddings", Embedding},
    {"embed_in", Embedding},
    {"shared", Embedding},
    {"qkv_proj", Value},
    {"query_key_value", Value},
    {"W_pack", Value},
    {"Wqkv", Value},
    {"c_attn", Value},
    {"kv_b_proj", Value},
    {"v_proj", Value},
    {"wv", Value},
    {"value", Value},
    {"k_proj", Key},
    {"wk", Key},
    {"key", Key},
    {"q_proj", Query},
    {"wq", Query},
    {"query", Query},
    {"o_proj", AttnOut},
    {"wo", AttnOut},
    {"self_attn.out_proj", AttnOut},
    {"attn.out_proj", AttnOut},
    {"attn.c_proj", AttnOut},
    {"self_attn.dense", AttnOut},
    {"attention.dense", AttnOut},
    {"self_attention.dense", AttnOut},
    {"attention.output.dense", AttnOut},
    {"up_proj", Up},
    {"gate_up_proj", Up},
    {"fc1", Up},
    {"c_fc", Up},
    {"dense_h_to_4h", Up},
    {"w3", Up},
    {"gate_proj", Gate},
    {"w1", Gate},
    {"down_proj", Down},
    {"fc2", Down},
    {"mlp.c_proj", Down},
    {"dense_4h_to_h", Down},
    {"w2", Down},
};

std::string_view text_of(Part part) noexcept {
  switch (part) {
    case None:
    case Any:
    case Other: return "";
    case Output: return "output";
    case Embedding: return "token embedding";
    case Value: return "attn_v";
    case Key: return "attn_k";
    case Query: return "attn_q";
    case AttnOut: return "attn_output";
    case Up: return "ffn_up";
    case Gate: return "ffn_gate";
    case Down: return "ffn_down";
  }
  return "";
}

struct WhenText {
  When when;
  std::string_view text;
};
constexpr WhenText kWhenTexts[] = {
    {kMore, "one of the layers with more bits"},
    {kFirst2, "one of the first 2"},
    {kFirst4, "one of the first 4"},
    {kFirstEighth, "first eighth of the layers"},
    {kFirstSixteenth, "first sixteenth of the layers"},
    {kMiddle, "middle layers"},
    {kGqa4, "4 heads or more share it"},
    {kGqa4OrExperts4, "4 heads or experts or more share it"},
    {kExperts8, "8 experts"},
    {kFalcon, "falcon"},
    {kImatrix, "with an importance matrix"},
    {kNoImatrix, "without an importance matrix"},
    {kStacked, "experts"},
    {kRowMisfit, "rows do not fit the mix's own type"},
};

bool names_end(std::string_view module, std::string_view parts) noexcept {
  return module == parts || (module.size() > parts.size() && module.ends_with(parts) &&
                             module[module.size() - parts.size() - 1] == '.');
}

// The layer in a name; -1: it belongs to none.
std::int64_t layer_in(std::string_view name, NameStyle style) noexcept {
  if (style == NameStyle::HuggingFace) {
    const auto layer = layer_of(name);
    return layer && *layer < (std::uint64_t{1} << 31) ? static_cast<std::int64_t>(*layer) : -1;
  }
  constexpr std::string_view kBlock = "blk.";
  std::int32_t layer = -1;
  if (!name.starts_with(kBlock)) return -1;
  const char* const end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data() + kBlock.size(), end, layer);
  return error == std::errc() && at != end && *at == '.' ? layer : -1;
}

bool is_70b(const MixFacts& f) noexcept {
  return std::ranges::any_of(k70B, [&](const Large& m) {
    return m.architecture == f.architecture && m.layers == f.layers &&
           (!m.shares_heads || f.heads != f.heads_kv);
  });
}

// A file may claim any number; products with 7 still fit.
constexpr std::uint64_t kMostLayers = std::uint64_t{1} << 31;

// Where a tensor stands among those of its part.
struct Position {
  std::int64_t at = 0, of = 0;
};
bool is_more(Position p) noexcept {
  return p.at < p.of / 8 || p.at >= 7 * p.of / 8 || (p.at - p.of / 8) % 3 == 2;
}

class Chooser {
 public:
  Chooser(const Mix& mix, const MixFacts& facts, std::span<const MixTensor> tensors,
          NameStyle style)
      : mix_(mix), facts_(facts), style_(style), is_70b_(is_70b(facts)) {
    for (const MixTensor& t : tensors) {
      const Part part = part_of(t.name, style);
      values_ += part == Value;
      tied_ &= part != Output;
    }
  }

  MixChoice choose(const MixTensor& t) {
    Part part = part_of(t.name, style_);
    if (part == Embedding && tied_) part = Output;
    const Position position = next_position(part, t);
    const auto [rule, type] = find_rule(part, position, t);
    std::string reason(mix_.name);
    if (rule) reason += describe(part, rule->when);
    if (part == Value && is_70b_ && mix_.family == F::Usual)
      for (const Raise& r : kRaise70B)
        if (r.from == type) return {r.to, fmt::format("{}: attn_v of a 70B model", mix_.name)};
    return {type, std::move(reason)};
  }

 private:
  struct Ruled {
    const MixRule* rule;
    DType type;
  };
  Ruled find_rule(Part part, Position position, const MixTensor& t) const {
    const std::span<const MixRule> lists[] = {kFirst, mix_.rules, kLast};
    for (const auto list : lists)
      for (const MixRule& r : list) {
        if (r.part == None) break;
        if ((r.part == part || r.part == Any) && holds(r.when, position, t)) return {&r, r.type};
      }
    return {nullptr, mix_.base};
  }

  // Each tensor of a part takes the next number. With experts, layers come in any order, so that
  // the number in a feed-forward tensor's name counts.
  Position next_position(Part part, const MixTensor& t) {
    if (part == Value) return {seen_[static_cast<std::size_t>(part)]++, values_};
    if (part != Up && part != Gate && part != Down) return {};
    const auto counted = seen_[static_cast<std::size_t>(part)]++;
    const auto layers = static_cast<std::int64_t>(std::min(facts_.layers, kMostLayers));
    const std::int64_t layer = layer_in(t.name, style_);
    const bool by_name = facts_.experts > 1 && mix_.family == F::Usual && layer >= 0;
    return {by_name ? layer : counted, layers};
  }

  bool holds(When when, Position p, const MixTensor& t) const {
    const auto is = [&](When bit, bool fact) { return !(when & bit) || fact; };
    const std::uint64_t gqa = facts_.heads_kv ? facts_.heads / facts_.heads_kv : 0;
    const bool falcon = facts_.architecture == "falcon";
    const std::uint64_t columns = t.shape.empty() ? 1 : t.shape.back();
    return is(kMore, is_more(p)) && is(kFirst2, p.at < 2) && is(kFirst4, p.at < 4) &&
           is(kFirstEighth, p.at < p.of / 8) && is(kFirstSixteenth, p.at < p.of / 16) &&
           is(kMiddle, p.at >= p.of / 8 && p.at < 7 * p.of / 8) && is(kGqa4, gqa >= 4) &&
           is(kGqa4OrExperts4, gqa >= 4 || facts_.experts >= 4) &&
           is(kExperts8, facts_.experts == 8) && is(kNotExperts8, facts_.experts != 8) &&
           is(kFalcon, falcon) && is(kNotFalcon, !falcon) && is(kImatrix, facts_.importance) &&
           is(kNoImatrix, !facts_.importance) &&
           is(kStacked, t.shape.size() >= 3 && t.shape[t.shape.size() - 3] > 1) &&
           is(kNotBailing3, facts_.architecture != "bailingmoe3") &&
           is(kRowMisfit, columns % info(mix_.base).block_elems != 0) &&
           is(kUsual, mix_.family == F::Usual) && is(kLow, mix_.family == F::Low);
  }

  std::string describe(Part part, When when) const {
    std::string text;
    const auto add = [&](std::string_view s) {
      if (!s.empty()) text += (text.empty() ? ": " : ", ") + std::string(s);
    };
    add(part == Output && tied_ ? "token embedding, used as output too" : text_of(part));
    for (const WhenText& w : kWhenTexts)
      if (when & w.when) add(w.text);
    return text;
  }

  const Mix& mix_;
  const MixFacts& facts_;
  const NameStyle style_;
  const bool is_70b_;
  bool tied_ = true;
  std::int64_t values_ = 0;
  std::array<std::int64_t, static_cast<std::size_t>(Other) + 1> seen_ = {};
};

// Hugging Face's names: what any quantisation leaves alone, but for the tables of tokens.
std::optional<std::string_view> reason_to_keep(const MixTensor& t, NameStyle style) {
  if (style == NameStyle::Ggml) return mix_keep_reason(t.name, t.dtype, t.shape);
  const DType type = info(t.dtype).kind == Kind::Block ? DType::F32 : t.dtype;
  const auto reason = keep_reason(t.name, type, t.shape, style);
  const Part part = part_of(t.name, style);
  const bool table =
      (part == Embedding && reason == "embedding") || (part == Output && reason == "head");
  return table && t.shape.size() == 2 ? std::nullopt : reason;
}

// As the reference visits them: what belongs to no layer first, then by layer, then by name.
std::vector<std::size_t> visiting_order(std::span<const MixTensor> tensors, NameStyle style) {
  std::vector<std::int64_t> layer(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) layer[i] = layer_in(tensors[i].name, style);
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return layer[a] != layer[b] ? layer[a] < layer[b] : tensors[a].name < tensors[b].name;
  });
  return order;
}

}  // namespace

std::span<const Mix> all_mixes() noexcept {
  return kMixes;
}

const Mix* find_mix(std::string_view name) noexcept {
  const auto same = [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b - 'A' + 'a' : b); };
  for (const Mix& m : kMixes)
    for (const std::string_view n : {m.name, m.alias})
      if (!n.empty() && std::ranges::equal(n, name, same)) return &m;
  return nullptr;
}

void read_mix_facts(const Metadata& gguf, MixFacts& facts) {
  facts.architecture = gguf.text("general.architecture");
  // A number, or one for each layer: the first layer's counts.
  const auto number = [&](std::string_view key, std::uint64_t otherwise) {
    const std::string whole = fmt::format("{}.{}", facts.architecture, key);
    std::optional<std::uint64_t> n = gguf.count(whole);
    const MetaValue* v = gguf.find(whole);
    if (const auto* array = v ? std::get_if<MetaArray>(v) : nullptr)
      for_each(*array, [&](const MetaValue& first) {
        Metadata one;
        one.append("n", first);
        n = one.count("n");
        return false;
      });
    return n.value_or(otherwise);
  };
  facts.layers = number("block_count", facts.layers);
  facts.experts = number("expert_count", facts.experts);
  facts.heads = number("attention.head_count", facts.heads);
  facts.heads_kv = number("attention.head_count_kv", facts.heads);
}

std::vector<MixChoice> apply_mix(const Mix& mix, const MixFacts& facts,
                                 std::span<const MixTensor> tensors, NameStyle style,
                                 const MixOptions& options) {
  const bool plain = options.pure || mix.family == F::Pure;
  std::vector<MixChoice> choices(tensors.size());
  Chooser chooser(mix, facts, tensors, style);
  for (const std::size_t i : visiting_order(tensors, style)) {
    const MixTensor& t = tensors[i];
    if (t.decided) continue;
    if (const auto why = reason_to_keep(t, style))
      choices[i].reason = *why;
    else if (plain)
      choices[i] = {mix.base, std::string(mix.name) + (options.pure ? ", pure" : "")};
    else
      choices[i] = chooser.choose(t);
  }
  return choices;
}

Part part_of(std::string_view name, NameStyle style) noexcept {
  if (style == NameStyle::Ggml) {
    for (const GgmlName& n : kGgmlNames)
      if (n.whole ? name == n.text : name.find(n.text) != name.npos) return n.part;
    return Other;
  }
  constexpr std::string_view kWeight = ".weight";
  if (!name.ends_with(kWeight)) return Other;
  const std::string_view module = name.substr(0, name.size() - kWeight.size());
  if (module == "output") return Output;  // Meta's own
  for (const ModuleName& n : kModuleNames)
    if (names_end(module, n.parts)) return n.part;
  return Other;
}

std::optional<DType> fallback_type(DType type, std::uint64_t columns) noexcept {
  if (type == T::NVFP4 || type == T::Q1_0) return std::nullopt;
  for (const Fallback& f : kFallbacks)
    if (f.from == type && columns % info(f.to).block_elems == 0) return f.to;
  return T::F16;
}

}  // namespace wtool
