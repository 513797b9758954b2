#include "formats/hf/architectures.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace wtool {
namespace {

using enum Presence;
using enum KeyType;
constexpr Move kSame = Move::Same;

// ---- tensors, by family

// Of Llama and all that are built like it; {q,k} are permuted for the rotary embedding of ggml's
// llama, which turns pairs of neighbours.
constexpr TensorRow kLlama[] = {
    {"embed_tokens", "token_embd", "V,H"},
    {"norm", "output_norm", "H"},
    {"lm_head", "output", "V,H", Optional},
    {"layers.{L}.input_layernorm", "blk.{L}.attn_norm", "H"},
    {"layers.{L}.self_attn.q_proj", "blk.{L}.attn_q", "Q,H", Always, Move::PermuteHeads},
    {"layers.{L}.self_attn.k_proj", "blk.{L}.attn_k", "K,H", Always, Move::PermuteKvHeads},
    {"layers.{L}.self_attn.v_proj", "blk.{L}.attn_v", "K,H"},
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,Q"},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.mlp.gate_proj", "blk.{L}.ffn_gate", "F,H", Dense},
    {"layers.{L}.mlp.up_proj", "blk.{L}.ffn_up", "F,H", Dense},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F", Dense},
};
constexpr TensorRow kMixtral[] = {
    {"layers.{L}.block_sparse_moe.gate", "blk.{L}.ffn_gate_inp", "E,H", Experts},
    {"layers.{L}.block_sparse_moe.experts.{X}.w1", "blk.{L}.ffn_gate_exps", "F,H", Experts,
     Move::Stack},
    {"layers.{L}.block_sparse_moe.experts.{X}.w2", "blk.{L}.ffn_down_exps", "H,F", Experts,
     Move::Stack},
    {"layers.{L}.block_sparse_moe.experts.{X}.w3", "blk.{L}.ffn_up_exps", "F,H", Experts,
     Move::Stack},
};
// What Qwen, Gemma, Phi and DeepSeek share: a rotary embedding of halves, as in the checkpoint.
constexpr TensorRow kHalves[] = {
    {"embed_tokens", "token_embd", "V,H"},
    {"norm", "output_norm", "H"},
    {"lm_head", "output", "V,H", Optional},
    {"layers.{L}.input_layernorm", "blk.{L}.attn_norm", "H"},
    {"layers.{L}.self_attn.q_proj", "blk.{L}.attn_q", "Q,H"},
    {"layers.{L}.self_attn.k_proj", "blk.{L}.attn_k", "K,H"},
    {"layers.{L}.self_attn.v_proj", "blk.{L}.attn_v", "K,H"},
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,Q"},
};
constexpr TensorRow kDenseLayer[] = {
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.mlp.gate_proj", "blk.{L}.ffn_gate", "F,H"},
    {"layers.{L}.mlp.up_proj", "blk.{L}.ffn_up", "F,H"},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F"},
};
constexpr TensorRow kQwen3Layer[] = {
    {"layers.{L}.self_attn.q_norm", "blk.{L}.attn_q_norm", "D"},
    {"layers.{L}.self_attn.k_norm", "blk.{L}.attn_k_norm", "D"},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.mlp.gate_proj", "blk.{L}.ffn_gate", "F,H"},
    {"layers.{L}.mlp.up_proj", "blk.{L}.ffn_up", "F,H"},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F"},
};
constexpr TensorRow kQwen2MoeLayer[] = {
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.mlp.gate", "blk.{L}.ffn_gate_inp", "E,H"},
    {"layers.{L}.mlp.experts.{X}.down_proj", "blk.{L}.ffn_down_exps", "H,M", Always, Move::Stack},
    {"layers.{L}.mlp.experts.{X}.gate_proj", "blk.{L}.ffn_gate_exps", "M,H", Always, Move::Stack},
    {"layers.{L}.mlp.experts.{X}.up_proj", "blk.{L}.ffn_up_exps", "M,H", Always, Move::Stack},
    {"layers.{L}.mlp.experts.down_proj", "blk.{L}.ffn_down_exps", "E,H,M"},
    {"layers.{L}.mlp.experts.gate_up_proj", "blk.{L}.ffn_gate_exps,blk.{L}.ffn_up_exps", "E,G,H",
     Always, Move::Halves},
    {"layers.{L}.mlp.shared_expert.gate_proj", "blk.{L}.ffn_gate_shexp", "S,H"},
    {"layers.{L}.mlp.shared_expert.up_proj", "blk.{L}.ffn_up_shexp", "S,H"},
    {"layers.{L}.mlp.shared_expert.down_proj", "blk.{L}.ffn_down_shexp", "H,S"},
    {"layers.{L}.mlp.shared_expert_gate", "blk.{L}.ffn_gate_inp_shexp", "1,H"},
};
constexpr TensorRow kQwen3MoeLayer[] = {
    {"layers.{L}.self_attn.q_norm", "blk.{L}.attn_q_norm", "D"},
    {"layers.{L}.self_attn.k_norm", "blk.{L}.attn_k_norm", "D"},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.mlp.gate", "blk.{L}.ffn_gate_inp", "E,H"},
    {"layers.{L}.mlp.experts.{X}.down_proj", "blk.{L}.ffn_down_exps", "H,M", Always, Move::Stack},
    {"layers.{L}.mlp.experts.{X}.gate_proj", "blk.{L}.ffn_gate_exps", "M,H", Always, Move::Stack},
    {"layers.{L}.mlp.experts.{X}.up_proj", "blk.{L}.ffn_up_exps", "M,H", Always, Move::Stack},
    {"layers.{L}.mlp.experts.down_proj", "blk.{L}.ffn_down_exps", "E,H,M"},
    {"layers.{L}.mlp.experts.gate_up_proj", "blk.{L}.ffn_gate_exps,blk.{L}.ffn_up_exps", "E,G,H",
     Always, Move::Halves},
};
constexpr TensorRow kGemma2Layer[] = {
    {"layers.{L}.post_attention_layernorm", "blk.{L}.post_attention_norm", "H"},
    {"layers.{L}.pre_feedforward_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.post_feedforward_layernorm", "blk.{L}.post_ffw_norm", "H"},
    {"layers.{L}.mlp.gate_proj", "blk.{L}.ffn_gate", "F,H"},
    {"layers.{L}.mlp.up_proj", "blk.{L}.ffn_up", "F,H"},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F"},
};
constexpr TensorRow kGemma3Layer[] = {
    {"layers.{L}.self_attn.q_norm", "blk.{L}.attn_q_norm", "D"},
    {"layers.{L}.self_attn.k_norm", "blk.{L}.attn_k_norm", "D"},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.post_attention_norm", "H"},
    {"layers.{L}.pre_feedforward_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.post_feedforward_layernorm", "blk.{L}.post_ffw_norm", "H"},
    {"layers.{L}.mlp.gate_proj", "blk.{L}.ffn_gate", "F,H"},
    {"layers.{L}.mlp.up_proj", "blk.{L}.ffn_up", "F,H"},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F"},
};
constexpr TensorRow kPhi3[] = {
    {"embed_tokens", "token_embd", "V,H"},
    {"norm", "output_norm", "H"},
    {"lm_head", "output", "V,H", Optional},
    {"layers.{L}.input_layernorm", "blk.{L}.attn_norm", "H"},
    {"layers.{L}.self_attn.qkv_proj", "blk.{L}.attn_qkv", "W,H"},
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,H"},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.mlp.gate_up_proj", "blk.{L}.ffn_up", "U,H"},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F"},
};
constexpr TensorRow kGpt2[] = {
    {"wte", "token_embd", "V,H"},
    {"wpe", "position_embd", "P,H"},
    {"ln_f", "output_norm", "H", Always, kSame, Bias::Required},
    {"lm_head", "output", "V,H", Optional},
    {"h.{L}.ln_1", "blk.{L}.attn_norm", "H", Always, kSame, Bias::Required},
    {"h.{L}.ln_2", "blk.{L}.ffn_norm", "H", Always, kSame, Bias::Required},
    {"h.{L}.attn.c_attn", "blk.{L}.attn_qkv", "H,Y", Always, Move::Transpose, Bias::Required},
    {"h.{L}.attn.c_proj", "blk.{L}.attn_output", "H,H", Always, Move::Transpose, Bias::Required},
    {"h.{L}.mlp.c_fc", "blk.{L}.ffn_up", "H,Z", Always, Move::Transpose, Bias::Required},
    {"h.{L}.mlp.c_proj", "blk.{L}.ffn_down", "Z,H", Always, Move::Transpose, Bias::Required},
};
constexpr TensorRow kStarcoder2[] = {
    {"embed_tokens", "token_embd", "V,H"},
    {"norm", "output_norm", "H", Always, kSame, Bias::Required},
    {"lm_head", "output", "V,H", Optional},
    {"layers.{L}.input_layernorm", "blk.{L}.attn_norm", "H", Always, kSame, Bias::Required},
    {"layers.{L}.self_attn.q_proj", "blk.{L}.attn_q", "Q,H"},
    {"layers.{L}.self_attn.k_proj", "blk.{L}.attn_k", "K,H"},
    {"layers.{L}.self_attn.v_proj", "blk.{L}.attn_v", "K,H"},
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,Q", Always, kSame, Bias::Required},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H", Always, kSame, Bias::Required},
    {"layers.{L}.mlp.c_fc", "blk.{L}.ffn_up", "F,H", Always, kSame, Bias::Required},
    {"layers.{L}.mlp.c_proj", "blk.{L}.ffn_down", "H,F", Always, kSame, Bias::Required},
};
constexpr TensorRow kDeepseek2[] = {
    {"embed_tokens", "token_embd", "V,H"},
    {"norm", "output_norm", "H"},
    {"lm_head", "output", "V,H", Optional},
    {"layers.{L}.input_layernorm", "blk.{L}.attn_norm", "H"},
    {"layers.{L}.self_attn.q_proj", "blk.{L}.attn_q", "q,H", Direct},
    {"layers.{L}.self_attn.q_a_proj", "blk.{L}.attn_q_a", "r,H", LowRank},
    {"layers.{L}.self_attn.q_a_layernorm", "blk.{L}.attn_q_a_norm", "r", LowRank},
    {"layers.{L}.self_attn.q_b_proj", "blk.{L}.attn_q_b", "q,r", LowRank},
    {"layers.{L}.self_attn.kv_a_proj_with_mqa", "blk.{L}.attn_kv_a_mqa", "p,H"},
    {"layers.{L}.self_attn.kv_a_layernorm", "blk.{L}.attn_kv_a_norm", "k"},
    {"layers.{L}.self_attn.kv_b_proj", "blk.{L}.attn_k_b,blk.{L}.attn_v_b", "b,k", Always,
     Move::SplitKvB},
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,o"},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.mlp.gate_proj", "blk.{L}.ffn_gate", "F,H", Dense},
    {"layers.{L}.mlp.up_proj", "blk.{L}.ffn_up", "F,H", Dense},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F", Dense},
    {"layers.{L}.mlp.gate", "blk.{L}.ffn_gate_inp", "E,H", Experts},
    {"layers.{L}.mlp.gate.e_score_correction_bias", "blk.{L}.exp_probs_b.bias", "E", Optional},
    {"layers.{L}.mlp.experts.{X}.down_proj", "blk.{L}.ffn_down_exps", "H,M", Experts, Move::Stack},
    {"layers.{L}.mlp.experts.{X}.gate_proj", "blk.{L}.ffn_gate_exps", "M,H", Experts, Move::Stack},
    {"layers.{L}.mlp.experts.{X}.up_proj", "blk.{L}.ffn_up_exps", "M,H", Experts, Move::Stack},
    {"layers.{L}.mlp.shared_experts.gate_proj", "blk.{L}.ffn_gate_shexp", "s,H", Experts},
    {"layers.{L}.mlp.shared_experts.up_proj", "blk.{L}.ffn_up_shexp", "s,H", Experts},
    {"layers.{L}.mlp.shared_experts.down_proj", "blk.{L}.ffn_down_shexp", "H,s", Experts},
};
constexpr TensorRow kBert[] = {
    {"embeddings.word_embeddings", "token_embd", "V,H"},
    {"embeddings.position_embeddings", "position_embd", "P,H"},
    {"embeddings.token_type_embeddings", "token_types", "T,H", Optional},
    {"embeddings.LayerNorm", "token_embd_norm", "H", Always, kSame, Bias::Required},
    {"encoder.layer.{L}.attention.self.query", "blk.{L}.attn_q", "H,H"},
    {"encoder.layer.{L}.attention.self.key", "blk.{L}.attn_k", "H,H"},
    {"encoder.layer.{L}.attention.self.value", "blk.{L}.attn_v", "H,H"},
    {"encoder.layer.{L}.attention.output.dense", "blk.{L}.attn_output", "H,H"},
    {"encoder.layer.{L}.attention.output.LayerNorm", "blk.{L}.attn_output_norm", "H", Always, kSame,
     Bias::Required},
    {"encoder.layer.{L}.intermediate.dense", "blk.{L}.ffn_up", "F,H"},
    {"encoder.layer.{L}.output.dense", "blk.{L}.ffn_down", "H,F"},
    {"encoder.layer.{L}.output.LayerNorm", "blk.{L}.layer_output_norm", "H", Always, kSame,
     Bias::Required},
};
constexpr TensorRow kNomicBert[] = {
    {"embeddings.word_embeddings", "token_embd", "V,H"},
    {"embeddings.token_type_embeddings", "token_types", "T,H", Optional},
    {"emb_ln", "token_embd_norm", "H", Always, kSame, Bias::Required},
    {"encoder.layers.{L}.attn.Wqkv", "blk.{L}.attn_qkv", "Y,H"},
    {"encoder.layers.{L}.attn.out_proj", "blk.{L}.attn_output", "H,H"},
    {"encoder.layers.{L}.norm1", "blk.{L}.attn_output_norm", "H", Always, kSame, Bias::Required},
    {"encoder.layers.{L}.mlp.fc11", "blk.{L}.ffn_up", "F,H"},
    {"encoder.layers.{L}.mlp.fc12", "blk.{L}.ffn_gate", "F,H"},
    {"encoder.layers.{L}.mlp.fc2", "blk.{L}.ffn_down", "H,F"},
    {"encoder.layers.{L}.norm2", "blk.{L}.layer_output_norm", "H", Always, kSame, Bias::Required},
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

// ---- metadata

constexpr Formula kLayers = "n_layers | num_hidden_layers | n_layer | num_layers",
                  kContext =
                      "max_position_embeddings | n_ctx | n_positions | max_length | "
                      "max_sequence_length | model_max_length",
                  kHidden = "hidden_size | n_embd | dim",
                  kHeads = "num_attention_heads | n_head | n_heads",
                  kKvHeads = "num_key_value_heads | n_kv_heads",
                  kRmsEpsilon = "rms_norm_eps | norm_eps",
                  kHeadDim = "head_dim | hidden_size / num_attention_heads";

// In the order of the reference. What config.json does not have is left out.
constexpr KeyRow kCommon[] = {
    {"block_count", U32, kLayers, true},
    {"context_length", U32, kContext, true},
    {"embedding_length", U32, kHidden, true},
    {"feed_forward_length", U32,
     "prefix_dense_intermediate_size | dense_intermediate_size | intermediate_size | n_inner | "
     "hidden_dim",
     true},
    {"attention.head_count", U32, kHeads, true},
    {"attention.head_count_kv", U32, kKvHeads},
    {"attention.causal", Bool, "is_causal"},
    {"rope.scaling.", RopeScaling},
    {"rope.freq_base", F32, "rope.rope_theta"},
    {"rope.freq_base_swa", F32, "rope_local.rope_theta"},
    {"attention.layer_norm_rms_epsilon", F32, kRmsEpsilon},
    {"attention.layer_norm_epsilon", F32, "layer_norm_eps | layer_norm_epsilon | norm_epsilon"},
    {"expert_count", U32, "num_local_experts | num_experts | n_routed_experts"},
    {"expert_used_count", U32, "num_experts_per_tok | num_experts_per_token | top_k_experts"},
    {"expert_group_count", U32, "n_group"},
    {"expert_group_used_count", U32, "topk_group"},
    {"expert_gating_func", Gating, "score_function | scoring_func | score_func"},
    {"attention.key_length", U32, "head_dim"},
    {"attention.value_length", U32, "head_dim"},
    {"general.file_type", FileType},
};
constexpr KeyRow kLlamaKeys[] = {
    {"vocab_size", U32, "vocab_size", true},
    {"rope.dimension_count", U32, kHeadDim, true},
};
constexpr KeyRow kGraniteKeys[] = {
    {"vocab_size", U32, "vocab_size", true},
    {"rope.dimension_count", U32, kHeadDim, true},
    {"attention.scale", F32, "attention_multiplier"},
    {"embedding_scale", F32, "embedding_multiplier"},
    {"residual_scale", F32, "residual_multiplier"},
    {"logit_scale", F32, "logits_scaling", true},
};
constexpr KeyRow kQwenKeys[] = {{"pooling_type", Pooling}};
constexpr KeyRow kQwenMoeKeys[] = {
    {"expert_feed_forward_length", U32, "moe_intermediate_size"},
    {"expert_shared_feed_forward_length", U32, "shared_expert_intermediate_size"},
};
constexpr KeyRow kGemmaKeys[] = {
    {"context_length", U32, "max_position_embeddings", true},
    {"embedding_length", U32, "hidden_size", true},
    {"block_count", U32, kLayers, true},
    {"feed_forward_length", U32, "intermediate_size", true},
    {"attention.head_count", U32, "num_attention_heads", true},
    {"attention.head_count_kv", U32, "num_key_value_heads | num_attention_heads", true},
    {"attention.layer_norm_rms_epsilon", F32, "rms_norm_eps", true},
    {"attention.key_length", U32, "head_dim", true},
    {"attention.value_length", U32, "head_dim", true},
    {"general.file_type", FileType},
};
constexpr KeyRow kGemma2Keys[] = {
    {"attn_logit_softcapping", F32, "attn_logit_softcapping", true},
    {"final_logit_softcapping", F32, "final_logit_softcapping", true},
    {"attention.sliding_window", U32, "sliding_window", true},
};
constexpr KeyRow kGemma3Keys[] = {
    {"rope.freq_base", F32, "rope.rope_theta", true},
    {"final_logit_softcapping", F32, "final_logit_softcapping"},
    {"attention.sliding_window", U32, "sliding_window", true},
};
constexpr KeyRow kPhi3Keys[] = {
    {"context_length", U32, "n_positions | max_position_embeddings", true},
    {"rope.scaling.original_context_length", U32,
     "rope.original_max_position_embeddings | original_max_position_embeddings | "
     "max_position_embeddings",
     true},
    {"embedding_length", U32, "hidden_size | n_embd", true},
    {"feed_forward_length", U32, "intermediate_size", true},
    {"block_count", U32, kLayers, true},
    {"attention.head_count", U32, "num_attention_heads | n_head", true},
    {"attention.head_count_kv", U32, "num_key_value_heads | num_attention_heads", true},
    {"attention.layer_norm_rms_epsilon", F32, "rms_norm_eps", true},
    {"rope.dimension_count", U32,
     "rope.partial_rotary_factor * hidden_size / num_attention_heads | "
     "hidden_size / num_attention_heads",
     true},
    {"rope.freq_base", F32, "rope.rope_theta", true},
    {"general.file_type", FileType},
    {"attention.sliding_window", U32, "sliding_window | 0", true},
    {"rope.scaling.attn_factor", RopeScaling},
};
constexpr KeyRow kGpt2Keys[] = {
    {"block_count", U32, kLayers, true},
    {"context_length", U32, "n_ctx | n_positions", true},
    {"embedding_length", U32, "n_embd", true},
    {"feed_forward_length", U32, "n_inner | 4 * n_embd", true},
    {"attention.head_count", U32, "n_head", true},
    {"attention.layer_norm_epsilon", F32, "layer_norm_epsilon", true},
    {"general.file_type", FileType},
};
constexpr KeyRow kDeepseek2Keys[] = {
    {"block_count", U32, kLayers, true},
    {"context_length", U32, kContext, true},
    {"embedding_length", U32, kHidden, true},
    {"feed_forward_length", U32, "intermediate_size", true},
    {"attention.head_count", U32, kHeads, true},
    {"attention.head_count_kv", U32, "1", true},  // latent attention runs as one head for all
    {"rope.scaling.", RopeScaling},
    {"rope.freq_base", F32, "rope.rope_theta"},
    {"attention.layer_norm_rms_epsilon", F32, kRmsEpsilon, true},
    {"expert_count", U32, "n_routed_experts", true},
    {"expert_used_count", U32, "num_experts_per_tok", true},
    {"expert_group_count", U32, "n_group"},
    {"expert_group_used_count", U32, "topk_group"},
    {"expert_gating_func", Gating, "scoring_func"},
    {"general.file_type", FileType},
    {"leading_dense_block_count", U32, "first_k_dense_replace | 0", true},
    {"vocab_size", U32, "vocab_size", true},
    {"attention.q_lora_rank", U32, "q_lora_rank"},
    {"attention.kv_lora_rank", U32, "kv_lora_rank", true},
    {"attention.key_length", U32, "kv_lora_rank + qk_rope_head_dim", true},
    {"attention.value_length", U32, "kv_lora_rank", true},
    {"attention.key_length_mla", U32, "qk_nope_head_dim + qk_rope_head_dim", true},
    {"attention.value_length_mla", U32, "v_head_dim", true},
    {"expert_feed_forward_length", U32, "moe_intermediate_size", true},
    {"expert_shared_count", U32, "n_shared_experts | 0", true},
    {"expert_weights_scale", F32, "routed_scaling_factor"},
    {"expert_weights_norm", Bool, "norm_topk_prob"},
    {"rope.dimension_count", U32, "qk_rope_head_dim", true},
    {"rope.scaling.yarn_log_multiplier", F32, "rope.mscale_all_dim * 0.1"},
};
constexpr KeyRow kBertKeys[] = {
    {"attention.causal", Bool, "0"},
    {"pooling_type", Pooling},
};

// ---- defaults: transformers' configuration_*.py

constexpr DefaultRow kLlamaDefaults[] = {{"max_position_embeddings", 2048},
                                         {"rms_norm_eps", 1e-6},
                                         {"rope_theta", 10000},
                                         {"vocab_size", 32000}};
constexpr DefaultRow kMistralDefaults[] = {{"max_position_embeddings", 131072},
                                           {"num_key_value_heads", 8},
                                           {"rms_norm_eps", 1e-6},
                                           {"rope_theta", 10000},
                                           {"vocab_size", 32000}};
constexpr DefaultRow kMixtralDefaults[] = {{"max_position_embeddings", 131072},
                                           {"num_key_value_heads", 8},
                                           {"rms_norm_eps", 1e-5},
                                           {"rope_theta", 1e6},
                                           {"num_local_experts", 8},
                                           {"num_experts_per_tok", 2},
                                           {"vocab_size", 32000}};
constexpr DefaultRow kQwen2Defaults[] = {{"max_position_embeddings", 32768},
                                         {"rms_norm_eps", 1e-6},
                                         {"rope_theta", 10000},
                                         {"vocab_size", 151936}};
constexpr DefaultRow kQwen3Defaults[] = {{"max_position_embeddings", 32768},
                                         {"rms_norm_eps", 1e-6},
                                         {"rope_theta", 10000},
                                         {"head_dim", 128},
                                         {"vocab_size", 151936}};
constexpr DefaultRow kGemmaDefaults[] = {{"max_position_embeddings", 8192},
                                         {"rms_norm_eps", 1e-6},
                                         {"head_dim", 256},
                                         {"vocab_size", 256000}};
constexpr DefaultRow kGemma2Defaults[] = {{"max_position_embeddings", 8192},
                                          {"rms_norm_eps", 1e-6},
                                          {"head_dim", 256},
                                          {"attn_logit_softcapping", 50},
                                          {"final_logit_softcapping", 30},
                                          {"sliding_window", 4096},
                                          {"vocab_size", 256000}};
constexpr DefaultRow kGemma3Defaults[] = {{"hidden_size", 2304},
                                          {"intermediate_size", 9216},
                                          {"num_hidden_layers", 26},
                                          {"num_attention_heads", 8},
                                          {"num_key_value_heads", 4},
                                          {"head_dim", 256},
                                          {"max_position_embeddings", 131072},
                                          {"rms_norm_eps", 1e-6},
                                          {"rope_theta", 1e6},
                                          {"rope_local_base_freq", 1e4},
                                          {"sliding_window", 4096},
                                          {"vocab_size", 262208}};
constexpr DefaultRow kPhi3Defaults[] = {{"max_position_embeddings", 4096},
                                        {"original_max_position_embeddings", 4096},
                                        {"rms_norm_eps", 1e-5},
                                        {"rope_theta", 10000},
                                        {"vocab_size", 32064}};
constexpr DefaultRow kGpt2Defaults[] = {{"n_positions", 1024}, {"layer_norm_epsilon", 1e-5},
                                        {"n_embd", 768},       {"n_head", 12},
                                        {"n_layer", 12},       {"vocab_size", 50257}};
constexpr DefaultRow kGraniteDefaults[] = {{"max_position_embeddings", 2048},
                                           {"rms_norm_eps", 1e-6},
                                           {"rope_theta", 10000},
                                           {"attention_multiplier", 1},
                                           {"embedding_multiplier", 1},
                                           {"residual_multiplier", 1},
                                           {"logits_scaling", 1},
                                           {"vocab_size", 32000}};
constexpr DefaultRow kSmollm3Defaults[] = {{"max_position_embeddings", 32768},
                                           {"num_key_value_heads", 4},
                                           {"rms_norm_eps", 1e-6},
                                           {"rope_theta", 2e6},
                                           {"vocab_size", 128256}};
constexpr DefaultRow kDeepseek2Defaults[] = {
    {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-6}, {"rope_theta", 10000}};
constexpr DefaultRow kStarcoder2Defaults[] = {{"max_position_embeddings", 4096},
                                              {"num_key_value_heads", 2},
                                              {"norm_epsilon", 1e-5},
                                              {"rope_theta", 10000},
                                              {"vocab_size", 49152}};
constexpr DefaultRow kBertDefaults[] = {{"max_position_embeddings", 512},
                                        {"layer_norm_eps", 1e-12},
                                        {"type_vocab_size", 2},
                                        {"vocab_size", 30522}};
constexpr DefaultRow kNomicDefaults[] = {
    {"max_trained_positions", 2048}, {"layer_norm_epsilon", 1e-12}, {"rotary_emb_base", 10000}};

// ---- what llama.cpp has no use for

constexpr DropRow kGemmaDrops[] = {{"lm_head*", "Gemma's output is its embedding"}};
constexpr DropRow kGpt2Drops[] = {{"h.*.attn.bias", "a causal mask, not a weight"},
                                  {"h.*.attn.masked_bias", "a causal mask, not a weight"}};
constexpr DropRow kDeepseek2Drops[] = {
    {"lm_head*", "tied to the embedding", "tie_word_embeddings"}};
constexpr DropRow kBertDrops[] = {{"embeddings.position_ids", "counts positions"},
                                  {"pooler.*", "llama.cpp pools by itself"},
                                  {"cls.*", "a head for training"}};

// ---- the architectures

constexpr std::string_view kModel[] = {"model."}, kTransformer[] = {"transformer."},
                           kBertPrefix[] = {"bert."};
constexpr std::string_view kLlamaClasses[] = {"LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"},
                           kMistralClasses[] = {"MistralForCausalLM", "MistralModel"},
                           kMixtralClasses[] = {"MixtralForCausalLM"},
                           kQwen2Classes[] = {"Qwen2ForCausalLM", "Qwen2Model"},
                           kQwen2MoeClasses[] = {"Qwen2MoeForCausalLM"},
                           kQwen3Classes[] = {"Qwen3ForCausalLM", "Qwen3Model"},
                           kQwen3MoeClasses[] = {"Qwen3MoeForCausalLM"},
                           kGemmaClasses[] = {"GemmaForCausalLM"},
                           kGemma2Classes[] = {"Gemma2ForCausalLM"},
                           kGemma3Classes[] = {"Gemma3ForCausalLM",
                                               "Gemma3ForConditionalGeneration"},
                           kPhi3Classes[] = {"Phi3ForCausalLM"},
                           kGpt2Classes[] = {"GPT2LMHeadModel"},
                           kGraniteClasses[] = {"GraniteForCausalLM"},
                           kSmollm3Classes[] = {"SmolLM3ForCausalLM"},
                           kDeepseek2Classes[] = {"DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"},
                           kStarcoder2Classes[] = {"Starcoder2ForCausalLM"},
                           kBertClasses[] = {"BertModel", "BertForMaskedLM"},
                           kNomicClasses[] = {"NomicBertModel"};
constexpr std::string_view kGraniteIgnored[] = {"head_dim"};
constexpr std::string_view kDeepseek2Ignored[] = {"head_dim"};

constexpr KeyRow kNomicKeys[] = {
    {"context_length", U32, "max_trained_positions", true},
    {"attention.causal", Bool, "0"},
    {"pooling_type", Pooling},
};

// The first of a name is the one that a GGUF file of it turns back into, unless its keys say more.
constexpr Architecture kArchitectures[] = {
    {.name = "llama",
     .classes = kLlamaClasses,
     .model_type = "llama",
     .tokenizer = TokenizerPath::SentencePieceElseBpe,
     .prefixes = kModel,
     .tensors = kLlama,
     .more_tensors = kMixtral,
     .keys = kCommon,
     .more_keys = kLlamaKeys,
     .defaults = kLlamaDefaults,
     .rope_freqs = true,
     .back = true},
    {.name = "llama",
     .classes = kMistralClasses,
     .model_type = "mistral",
     .tokenizer = TokenizerPath::SentencePieceElseBpe,
     .prefixes = kModel,
     .tensors = kLlama,
     .keys = kCommon,
     .more_keys = kLlamaKeys,
     .defaults = kMistralDefaults,
     .rope_freqs = true},
    {.name = "llama",
     .classes = kMixtralClasses,
     .model_type = "mixtral",
     .tokenizer = TokenizerPath::SentencePieceElseBpe,
     .prefixes = kModel,
     .tensors = kLlama,
     .more_tensors = kMixtral,
     .keys = kCommon,
     .more_keys = kLlamaKeys,
     .defaults = kMixtralDefaults,
     .rope_freqs = true,
     .back = true,
     .of_experts = true},
    {.name = "qwen2",
     .classes = kQwen2Classes,
     .model_type = "qwen2",
     .tokenizer = TokenizerPath::SentencePieceElseBpe,
     .prefixes = kModel,
     .tensors = kHalves,
     .more_tensors = kDenseLayer,
     .keys = kCommon,
     .more_keys = kQwenKeys,
     .defaults = kQwen2Defaults,
     .back = true},
    {.name = "qwen2moe",
     .classes = kQwen2MoeClasses,
     .model_type = "qwen2_moe",
     .tokenizer = TokenizerPath::Bpe,
     .prefixes = kModel,
     .tensors = kHalves,
     .more_tensors = kQwen2MoeLayer,
     .keys = kCommon,
     .more_keys = kQwenMoeKeys,
     .defaults = kQwen2Defaults},
    {.name = "qwen3",
     .classes = kQwen3Classes,
     .model_type = "qwen3",
     .tokenizer = TokenizerPath::SentencePieceElseBpe,
     .prefixes = kModel,
     .tensors = kHalves,
     .more_tensors = kQwen3Layer,
     .keys = kCommon,
     .more_keys = kQwenKeys,
     .defaults = kQwen3Defaults,
     .back = true},
    {.name = "qwen3moe",
     .classes = kQwen3MoeClasses,
     .model_type = "qwen3_moe",
     .tokenizer = TokenizerPath::Bpe,
     .prefixes = kModel,
     .tensors = kHalves,
     .more_tensors = kQwen3MoeLayer,
     .keys = kCommon,
     .more_keys = kQwenMoeKeys,
     .defaults = kQwen3Defaults},
    {.name = "gemma",
     .classes = kGemmaClasses,
     .model_type = "gemma",
     .tokenizer = TokenizerPath::SentencePiece,
     .prefixes = kModel,
     .tensors = kHalves,
     .more_tensors = kDenseLayer,
     .keys = kGemmaKeys,
     .defaults = kGemmaDefaults,
     .drops = kGemmaDrops,
     .norms_plus_one = true,
     .back = true},
    {.name = "gemma2",
     .classes = kGemma2Classes,
     .model_type = "gemma2",
     .tokenizer = TokenizerPath::SentencePiece,
     .prefixes = kModel,
     .tensors = kHalves,
     .more_tensors = kGemma2Layer,
     .keys = kGemmaKeys,
     .more_keys = kGemma2Keys,
     .defaults = kGemma2Defaults,
     .drops = kGemmaDrops,
     .norms_plus_one = true,
     .back = true},
    {.name = "gemma3",
     .classes = kGemma3Classes,
     .model_type = "gemma3_text",
     .tokenizer = TokenizerPath::SentencePieceElseBpe,
     .prefixes = kModel,
     .tensors = kHalves,
     .more_tensors = kGemma3Layer,
     .keys = kCommon,
     .more_keys = kGemma3Keys,
     .defaults = kGemma3Defaults,
     .norms_plus_one = true,
     .back = true,
     .trims_embedding = true},
    {.name = "phi3",
     .classes = kPhi3Classes,
     .model_type = "phi3",
     .tokenizer = TokenizerPath::SentencePiece,
     .prefixes = kModel,
     .tensors = kPhi3,
     .keys = kPhi3Keys,
     .defaults = kPhi3Defaults,
     .back = true},
    {.name = "gpt2",
     .classes = kGpt2Classes,
     .model_type = "gpt2",
     .tokenizer = TokenizerPath::Bpe,
     .prefixes = kTransformer,
     .tensors = kGpt2,
     .keys = kGpt2Keys,
     .defaults = kGpt2Defaults,
     .drops = kGpt2Drops},
    {.name = "granite",
     .classes = kGraniteClasses,
     .model_type = "granite",
     .tokenizer = TokenizerPath::SentencePieceElseBpe,
     .prefixes = kModel,
     .tensors = kLlama,
     .keys = kCommon,
     .more_keys = kGraniteKeys,
     .defaults = kGraniteDefaults,
     .ignored_keys = kGraniteIgnored,
     .rope_freqs = true},
    {.name = "smollm3",
     .classes = kSmollm3Classes,
     .model_type = "smollm3",
     .tokenizer = TokenizerPath::SentencePieceElseBpe,
     .prefixes = kModel,
     .tensors = kLlama,
     .keys = kCommon,
     .more_keys = kLlamaKeys,
     .defaults = kSmollm3Defaults,
     .rope_freqs = true},
    {.name = "deepseek2",
     .classes = kDeepseek2Classes,
     .model_type = "deepseek_v2",
     .tokenizer = TokenizerPath::Bpe,
     .prefixes = kModel,
     .tensors = kDeepseek2,
     .keys = kDeepseek2Keys,
     .defaults = kDeepseek2Defaults,
     .drops = kDeepseek2Drops,
     .ignored_keys = kDeepseek2Ignored},
    {.name = "starcoder2",
     .classes = kStarcoder2Classes,
     .model_type = "starcoder2",
     .tokenizer = TokenizerPath::Bpe,
     .prefixes = kModel,
     .tensors = kStarcoder2,
     .keys = kCommon,
     .defaults = kStarcoder2Defaults},
    {.name = "bert",
     .classes = kBertClasses,
     .model_type = "bert",
     .tokenizer = TokenizerPath::WordPiece,
     .prefixes = kBertPrefix,
     .tensors = kBert,
     .keys = kCommon,
     .more_keys = kBertKeys,
     .defaults = kBertDefaults,
     .drops = kBertDrops},
    {.name = "nomic-bert",
     .classes = kNomicClasses,
     .model_type = "nomic_bert",
     .tokenizer = TokenizerPath::WordPiece,
     .prefixes = kBertPrefix,
     .tensors = kNomicBert,
     .keys = kCommon,
     .more_keys = kNomicKeys,
     .defaults = kNomicDefaults,
     .drops = kBertDrops},
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

std::span<const Architecture> all_architectures() noexcept {
  return kArchitectures;
}

const Architecture* architecture_of_class(std::string_view hf_class) noexcept {
  const auto it = std::ranges::find_if(kArchitectures, [&](const Architecture& a) {
    return std::ranges::find(a.classes, hf_class) != a.classes.end();
  });
  return it == std::end(kArchitectures) ? nullptr : &*it;
}

const Architecture* architecture_named(std::string_view gguf_name) noexcept {
  const auto it = std::ranges::find(kArchitectures, gguf_name, &Architecture::name);
  return it == std::end(kArchitectures) ? nullptr : &*it;
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
