#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "lib/base/dtype.h"

namespace wtool {

enum class NameStyle : std::uint8_t {
  HuggingFace,  // "model.layers.0.self_attn.q_proj.weight": safetensors, NPY
  Ggml,         // "blk.0.attn_q.weight": GGUF
};

// Why a tensor stays as it is when a model is quantised ("norm", "embedding", "router", …), or
// nothing: it is the weight of a linear layer. What the rules cannot tell from name, type and shape
// is kept: too many bits do no harm.
std::optional<std::string_view> keep_reason(std::string_view name, DType dtype, ShapeView shape,
                                            NameStyle style) noexcept;

// What llama.cpp's own quantiser leaves alone under any mix, going by ggml's names: token embedding
// and output are not among it.
std::optional<std::string_view> mix_keep_reason(std::string_view name, DType dtype,
                                                ShapeView shape) noexcept;

}  // namespace wtool
