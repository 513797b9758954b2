// DeepSeek V2 and V3: latent attention, run as one head of keys and values for all.
// conversion/deepseek.py; src/models/deepseek2.cpp
#include "formats/hf/architectures/families.h"

namespace wtool {
namespace {

using enum Presence;
using enum KeyType;

constexpr TensorRow kOwn[] = {
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
constexpr TensorTable kTensors[] = {kEnds, kOwn};
constexpr DropRow kDrops[] = {{"lm_head*", "tied to the embedding", "tie_word_embeddings"}};

constexpr KeyRow kOwnKeys[] = {
    {"block_count", U32, kLayers, true},
    {"context_length", U32, kContext, true},
    {"embedding_length", U32, kHidden, true},
    {"feed_forward_length", U32, "intermediate_size", true},
    {"attention.head_count", U32, kHeads, true},
    {"attention.head_count_kv", U32, "1", true},
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
constexpr KeyTable kKeys[] = {kOwnKeys};

constexpr DefaultRow kDefaults[] = {
    {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-6}, {"rope_theta", 10000}};
// Its class in transformers has no choice of how experts are scored.
constexpr DefaultRow kDeepseek3Defaults[] = {
    {"max_position_embeddings", 4096}, {"rms_norm_eps", 1e-6}, {"rope_theta", 10000},
    {"routed_scaling_factor", 2.5},    {"norm_topk_prob", 1},  {"scoring_func", 0, "sigmoid"}};
constexpr AssumedRow kAssumed[] = {{"rope_interleave", 1}, {"moe_layer_freq", 1}};

constexpr std::string_view kDeepseek2Classes[] = {"DeepseekV2ForCausalLM"},
                           kDeepseek3Classes[] = {"DeepseekV3ForCausalLM"};
constexpr std::string_view kIgnored[] = {"head_dim"};

}  // namespace

constinit const Architecture kDeepseek2{.name = "deepseek2",
                                        .classes = kDeepseek2Classes,
                                        .model_type = "deepseek_v2",
                                        .tokenizer = TokenizerPath::Bpe,
                                        .prefixes = kModelPrefix,
                                        .tensors = kTensors,
                                        .keys = kKeys,
                                        .defaults = kDefaults,
                                        .assumed = kAssumed,
                                        .drops = kDrops,
                                        .ignored_keys = kIgnored};
constinit const Architecture kDeepseek3{.name = "deepseek2",
                                        .classes = kDeepseek3Classes,
                                        .model_type = "deepseek_v3",
                                        .tokenizer = TokenizerPath::Bpe,
                                        .prefixes = kModelPrefix,
                                        .tensors = kTensors,
                                        .keys = kKeys,
                                        .defaults = kDeepseek3Defaults,
                                        .assumed = kAssumed,
                                        .drops = kDrops,
                                        .ignored_keys = kIgnored};

}  // namespace wtool
