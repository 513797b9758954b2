#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/model.h"

// What inference engines make of a quantised model, as far as names and shapes tell: for warnings
// before the work. Sources: vLLM's and SGLang's Marlin kernels (marlin_utils.py), vLLM's
// packed_modules_mapping and fp8 block checks, llm-compressor's table of compute capabilities.
namespace wtool {

// All that a configuration says of weights: two that agree may share its entry.
bool alike(const SchemeOptions& a, const SchemeOptions& b);

struct EngineModule {
  std::string name;  // "model.layers.0.mlp.up_proj"
  std::uint64_t outputs = 0, inputs = 0;
  SchemeOptions options;
};

// The weights that engines load as one matrix: they must be quantised alike, or all be left.
struct FusedSet {
  std::string name;  // the same for all members: "model.layers.0.self_attn.{q,k,v}_proj"
};
std::optional<FusedSet> fused_set(std::string_view module);

// Each names the engine and the modules: one line for all that differ in numbers only. `kept`:
// modules of Linear layers left as they were.
std::vector<std::string> engine_warnings(std::string_view scheme,
                                         std::span<const EngineModule> modules,
                                         std::span<const std::string> kept);

}  // namespace wtool
