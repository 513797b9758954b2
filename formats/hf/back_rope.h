#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace wtool {

// rope_scaling of type "llama3", which GGUF keeps as what it makes of each frequency.
struct Llama3Rope {
  double factor = 1, low = 1, high = 4;
  std::uint64_t original = 8192;  // original_max_position_embeddings
  std::string assumed;            // what the factors leave open, in words
};

// What gives `factors` (one a frequency, rope_freqs.weight) at this rope_theta, or nullopt. Only
// low : high : original shows in them, so low is 1, as in every Llama.
std::optional<Llama3Rope> llama3_rope_of(std::span<const float> factors, double theta);

}  // namespace wtool
