#include "formats/hf/architectures.h"

#include <algorithm>
#include <array>

#include "formats/hf/architectures/families.h"

namespace wtool {
namespace {

constexpr const Architecture* kArchitectures[] = {
    &kLlama,     &kMistral,   &kMixtral,    &kQwen2,       &kQwen2Moe, &kQwen3,     &kQwen3Moe,
    &kGemma,     &kGemma2,    &kGemma3,     &kPhi3,        &kGpt2,     &kGranite,   &kSmollm3,
    &kDeepseek2, &kDeepseek3, &kStarcoder2, &kGptOssModel, &kBert,     &kNomicBert,
};

constexpr Dimension kDimensions[] = {
    {'V', "vocab_size"},
    {'H', "hidden_size | n_embd | dim"},
    {'F', "intermediate_size | n_inner | hidden_dim | 4 * n_embd"},
    {'D', "head_dim | hidden_size / num_attention_heads"},
    {'Q', "num_attention_heads * head_dim | hidden_size"},
    {'K',
     "num_key_value_heads * head_dim | "
     "hidden_size / num_attention_heads * num_key_value_heads | hidden_size"},
    {'h', "num_attention_heads"},
    {'E', "num_local_experts | num_experts | n_routed_experts"},
    {'M', "moe_intermediate_size"},
    {'G', "2 * moe_intermediate_size"},
    {'S', "shared_expert_intermediate_size"},
    {'P', "max_position_embeddings | n_positions | n_ctx"},
    {'T', "type_vocab_size"},
    {'1', "1"},
    // Fused: queries, keys and values; gate and up.
    {'W', "num_key_value_heads * 2 + num_attention_heads * hidden_size / num_attention_heads"},
    {'U', "2 * intermediate_size"},
    {'Y', "3 * n_embd"},
    {'Z', "n_inner | 4 * n_embd"},
    // Multi-head latent attention.
    {'r', "q_lora_rank"},
    {'k', "kv_lora_rank"},
    {'p', "kv_lora_rank + qk_rope_head_dim"},
    {'q', "qk_nope_head_dim + qk_rope_head_dim * num_attention_heads"},
    {'b', "qk_nope_head_dim + v_head_dim * num_attention_heads"},
    {'o', "v_head_dim * num_attention_heads"},
    {'s', "moe_intermediate_size * n_shared_experts"},
};

// What names of modules hold that see or hear, as the reference finds them.
constexpr std::string_view kForeignParts[] = {
    "visual.",          "vision.",        "audio.",           "talker.",
    "vision_",          "audio_",         "token2wav.",       "code2wav.",
    "projector.",       "image_newline",  "patch_embed",      "patch_merger.",
    "patch_merge_mlp.", "view_seperator", "model.connector.", "pre_mm_projector_norm"};
constexpr std::string_view kForeignStarts[] = {
    "mlp",     "vit.",       "vpm.",           "siglip2.",          "conformer.",
    "merger.", "resampler.", "sound_encoder.", "sound_projection.", "speech_embeddings."};

}  // namespace

std::span<const Architecture* const> all_architectures() noexcept {
  return kArchitectures;
}

const Architecture* architecture_of_class(std::string_view hf_class) noexcept {
  for (const Architecture* a : kArchitectures)
    if (std::ranges::find(a->classes, hf_class) != a->classes.end()) return a;
  return nullptr;
}

const Architecture* architecture_named(std::string_view gguf_name) noexcept {
  for (const Architecture* a : kArchitectures)
    if (a->name == gguf_name) return a;
  return nullptr;
}

std::span<const Dimension> all_dimensions() noexcept {
  return kDimensions;
}
std::span<const std::string_view> foreign_parts() noexcept {
  return kForeignParts;
}
std::span<const std::string_view> foreign_starts() noexcept {
  return kForeignStarts;
}

}  // namespace wtool
