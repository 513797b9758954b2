#pragma once
// What several architectures share. One file beside this has what belongs to a family alone.
#include "formats/hf/architectures.h"

namespace wtool {

inline constexpr std::string_view kModelPrefix[] = {"model."};

// ---- tensors

inline constexpr TensorRow kEnds[] = {
    {"embed_tokens", "token_embd", "V,H"},
    {"norm", "output_norm", "H"},
    {"lm_head", "output", "V,H", Presence::Optional},
    {"layers.{L}.input_layernorm", "blk.{L}.attn_norm", "H"},
};
// The rotary embedding turns halves of a head, as in the checkpoint.
inline constexpr TensorRow kHalves[] = {
    {"layers.{L}.self_attn.q_proj", "blk.{L}.attn_q", "Q,H", kAlways, kSame, Bias::Optional},
    {"layers.{L}.self_attn.k_proj", "blk.{L}.attn_k", "K,H", kAlways, kSame, Bias::Optional},
    {"layers.{L}.self_attn.v_proj", "blk.{L}.attn_v", "K,H", kAlways, kSame, Bias::Optional},
};
inline constexpr TensorRow kAttentionOutput[] = {
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,Q"},
};
inline constexpr TensorRow kHeadNorms[] = {
    {"layers.{L}.self_attn.q_norm", "blk.{L}.attn_q_norm", "D"},
    {"layers.{L}.self_attn.k_norm", "blk.{L}.attn_k_norm", "D"},
};
inline constexpr TensorRow kNormBefore[] = {
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H"},
};
inline constexpr TensorRow kGated[] = {
    {"layers.{L}.mlp.gate_proj", "blk.{L}.ffn_gate", "F,H"},
    {"layers.{L}.mlp.up_proj", "blk.{L}.ffn_up", "F,H"},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F"},
};

// ---- keys, in the order of the reference's TextModel. What config.json does not have is left out.

inline constexpr Formula
    kLayers = "n_layers | num_hidden_layers | n_layer | num_layers",
    kContext =
        "max_position_embeddings | n_ctx | n_positions | max_length | max_sequence_length | "
        "model_max_length",
    kHidden = "hidden_size | n_embd | dim", kHeads = "num_attention_heads | n_head | n_heads",
    kKvHeads = "num_key_value_heads | n_kv_heads", kRmsEpsilon = "rms_norm_eps | norm_eps",
    kHeadDim = "head_dim | hidden_size / num_attention_heads";

inline constexpr KeyRow kCommonKeys[] = {
    {"block_count", KeyType::U32, kLayers, true},
    {"context_length", KeyType::U32, kContext, true},
    {"embedding_length", KeyType::U32, kHidden, true},
    {"feed_forward_length", KeyType::U32,
     "prefix_dense_intermediate_size | dense_intermediate_size | intermediate_size | n_inner | "
     "hidden_dim",
     true},
    {"attention.head_count", KeyType::U32, kHeads, true},
    {"attention.head_count_kv", KeyType::U32, kKvHeads},
    {"attention.causal", KeyType::Bool, "is_causal"},
    {"rope.scaling.", KeyType::RopeScaling},
    {"rope.freq_base", KeyType::F32, "rope.rope_theta"},
    {"rope.freq_base_swa", KeyType::F32, "rope_local.rope_theta"},
    {"attention.layer_norm_rms_epsilon", KeyType::F32, kRmsEpsilon},
    {"attention.layer_norm_epsilon", KeyType::F32,
     "layer_norm_eps | layer_norm_epsilon | norm_epsilon"},
    {"expert_count", KeyType::U32, "num_local_experts | num_experts | n_routed_experts"},
    {"expert_used_count", KeyType::U32,
     "num_experts_per_tok | num_experts_per_token | top_k_experts"},
    {"expert_group_count", KeyType::U32, "n_group"},
    {"expert_group_used_count", KeyType::U32, "topk_group"},
    {"expert_gating_func", KeyType::Gating, "score_function | scoring_func | score_func"},
    {"attention.key_length", KeyType::U32, "head_dim"},
    {"attention.value_length", KeyType::U32, "head_dim"},
    {"general.file_type", KeyType::FileType},
};

// ---- what llama.cpp computes whatever config.json says

inline constexpr AssumedRow kWholeHeadTurns{"rope.partial_rotary_factor", 1},
    kNoWindow{"sliding_window", 0}, kNoWindowUsed{"use_sliding_window", 0};

}  // namespace wtool
