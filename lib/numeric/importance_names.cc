#include "lib/numeric/importance_names.h"

#include <algorithm>
#include <charconv>
#include <span>

#include <fmt/format.h>

namespace wtool {
namespace {

struct Known {
  std::string_view theirs, ours;
};
// After "model.layers.N.": gguf-py's tensor_mapping.py has these names for Llama and its kin.
constexpr Known kInLayer[] = {
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"self_attn.qkv_proj", "attn_qkv"},
    {"self_attn.q_a_proj", "attn_q_a"},
    {"self_attn.q_b_proj", "attn_q_b"},
    {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"},
    {"self_attn.kv_b_proj", "attn_kv_b"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"mlp.gate_up_proj", "ffn_up"},
    {"mlp.gate", "ffn_gate_inp"},
    {"block_sparse_moe.gate", "ffn_gate_inp"},
    {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp"},
    {"mlp.shared_expert.down_proj", "ffn_down_shexp"},
    {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
    {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
    {"mlp.shared_experts.down_proj", "ffn_down_shexp"},
};
// After "….experts.E.".
constexpr Known kInExpert[] = {
    {"gate_proj", "ffn_gate_exps"}, {"up_proj", "ffn_up_exps"}, {"down_proj", "ffn_down_exps"},
    {"w1", "ffn_gate_exps"},        {"w3", "ffn_up_exps"},      {"w2", "ffn_down_exps"},
};
constexpr std::string_view kExperts[] = {"mlp.experts.", "block_sparse_moe.experts."};

std::optional<std::string_view> known(std::span<const Known> names, std::string_view theirs) {
  const auto it = std::ranges::find(names, theirs, &Known::theirs);
  return it == names.end() ? std::nullopt : std::optional(it->ours);
}

// Takes "12." from the front.
std::optional<std::uint64_t> take_number(std::string_view& from) {
  std::uint64_t n = 0;
  const auto [end, code] = std::from_chars(from.data(), from.data() + from.size(), n);
  if (code != std::errc() || end == from.data() + from.size() || *end != '.') return std::nullopt;
  from.remove_prefix(static_cast<std::size_t>(end - from.data()) + 1);
  return n;
}
bool take(std::string_view& from, std::string_view prefix) {
  if (!from.starts_with(prefix)) return false;
  from.remove_prefix(prefix.size());
  return true;
}

}  // namespace

std::optional<ImportanceName> importance_name(std::string_view name) {
  constexpr std::string_view kWeight = ".weight";
  if (!name.ends_with(kWeight)) return std::nullopt;
  name.remove_suffix(kWeight.size());
  if (name == "lm_head") return ImportanceName{"output.weight", {}};
  if (!take(name, "model.")) return std::nullopt;
  if (name == "embed_tokens") return ImportanceName{"token_embd.weight", {}};
  take(name, "language_model.");
  if (!take(name, "layers.")) return std::nullopt;
  const auto layer = take_number(name);
  if (!layer) return std::nullopt;
  if (const auto ours = known(kInLayer, name))
    return ImportanceName{fmt::format("blk.{}.{}.weight", *layer, *ours), {}};
  for (const std::string_view prefix : kExperts) {
    std::string_view rest = name;
    if (!take(rest, prefix)) continue;
    const auto expert = take_number(rest);
    const auto ours = expert ? known(kInExpert, rest) : std::nullopt;
    if (ours) return ImportanceName{fmt::format("blk.{}.{}.weight", *layer, *ours), expert};
  }
  return std::nullopt;
}

}  // namespace wtool
