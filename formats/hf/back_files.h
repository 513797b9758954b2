#pragma once
// The way back, from a GGUF file to a Hugging Face folder: the files beside the weights.
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/metadata.h"
#include "lib/model/plan.h"

namespace wtool {

// What of the file's tensors, and of the architecture, shows in the files beside them.
struct BackFacts {
  std::string_view hf_class;                     // "LlamaForCausalLM"
  std::string_view model_type;                   // "llama"
  bool tied = false;                             // no output.weight in the file
  std::string_view dtype;                        // "bfloat16"
  std::span<const float> rope_freqs;             // rope_freqs.weight, or empty
  std::span<const float> rope_long, rope_short;  // rope_factors_{long,short}.weight, or empty
  bool attention_bias = false;                   // attn_q.bias and its like are there;
  bool mlp_bias = false;                         // ffn_up.bias and its like
};

// config.json, generation_config.json (if the metadata has defaults for sampling), tokenizer.json
// or tokenizer.model, tokenizer_config.json; and, in words, what GGUF does not keep: left out,
// assumed, or of no place in those files.
struct BackFiles {
  std::vector<SideFile> files;
  std::vector<std::string> lost;
};

// Throws BadFile: keys missing (all are named), of another type, or against each other;
// Unsupported: what the class can't be told.
BackFiles back_files(const Metadata& gguf, const BackFacts& facts);

// Model types that have a config.json here.
std::span<const std::string_view> back_model_types() noexcept;

// Limits on a tokenizer; texts are made in memory.
inline constexpr std::uint64_t kMaxBackTokens = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kMaxBackMerges = std::uint64_t{1} << 21;
inline constexpr std::uint64_t kMaxBackTokenText = std::uint64_t{32} << 20;  // of all tokens
inline constexpr std::uint64_t kMaxBackTemplate = std::uint64_t{16} << 20;   // of all templates

}  // namespace wtool
