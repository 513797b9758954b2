#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace wtool {

// Under which name llama.cpp's importance matrices know a weight of a Hugging Face model: its rows
// may be in another order there, its columns are the same.
struct ImportanceName {
  std::string name;                     // "blk.3.ffn_gate.weight"
  std::optional<std::uint64_t> expert;  // of a stack of experts, which
};
// "model.layers.3.mlp.gate_proj.weight". nullopt: a name that is not known.
std::optional<ImportanceName> importance_name(std::string_view hugging_face);

}  // namespace wtool
