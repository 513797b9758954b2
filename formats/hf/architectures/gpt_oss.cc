// gpt-oss: experts in MXFP4 with gate and up row by row in turn, sinks, biases everywhere.
// conversion/gpt_oss.py; src/models/openai-moe.cpp
#include "formats/hf/architectures/families.h"

namespace wtool {
namespace {

using enum KeyType;

constexpr TensorRow kRows[] = {
    {"lm_head", "output", "V,H"},  // not optional here
    {"layers.{L}.self_attn.q_proj", "blk.{L}.attn_q", "Q,H", kAlways, kSame, Bias::Required},
    {"layers.{L}.self_attn.k_proj", "blk.{L}.attn_k", "K,H", kAlways, kSame, Bias::Required},
    {"layers.{L}.self_attn.v_proj", "blk.{L}.attn_v", "K,H", kAlways, kSame, Bias::Required},
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,Q", kAlways, kSame, Bias::Required},
    {"layers.{L}.self_attn.sinks", "blk.{L}.attn_sinks", "h"},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.post_attention_norm", "H"},
    {"layers.{L}.mlp.router", "blk.{L}.ffn_gate_inp", "E,H", kAlways, kSame, Bias::Required},
    {"layers.{L}.mlp.experts.gate_up_proj", "blk.{L}.ffn_gate_exps,blk.{L}.ffn_up_exps", "E,U,H",
     kAlways, Move::Interleaved},
    {"layers.{L}.mlp.experts.gate_up_proj_bias",
     "blk.{L}.ffn_gate_exps.bias,blk.{L}.ffn_up_exps.bias", "E,U", kAlways, Move::Interleaved},
    {"layers.{L}.mlp.experts.down_proj", "blk.{L}.ffn_down_exps", "E,H,F", kAlways,
     Move::TransposeExperts},
    {"layers.{L}.mlp.experts.down_proj_bias", "blk.{L}.ffn_down_exps.bias", "E,H"},
};
constexpr TensorTable kTensors[] = {kEnds, kRows};
constexpr KeyRow kOwn[] = {
    {"attention.sliding_window", U32, "sliding_window", true},
    {"expert_feed_forward_length", U32, "intermediate_size", true},
};
constexpr KeyTable kKeys[] = {kCommonKeys, kOwn};
constexpr DefaultRow kDefaults[] = {{"max_position_embeddings", 131072},
                                    {"rms_norm_eps", 1e-5},
                                    {"rope_theta", 150000},
                                    {"sliding_window", 128},
                                    {"num_local_experts", 128},
                                    {"num_experts_per_tok", 4},
                                    {"vocab_size", 201088}};
constexpr AssumedRow kAssumed[] = {kWholeHeadTurns, {"swiglu_limit", 7}};
constexpr std::string_view kClasses[] = {"GptOssForCausalLM"};

}  // namespace

constinit const Architecture kGptOssModel{.name = "gpt-oss",
                                          .classes = kClasses,
                                          .model_type = "gpt_oss",
                                          .tokenizer = TokenizerPath::Bpe,
                                          .prefixes = kModelPrefix,
                                          .tensors = kTensors,
                                          .keys = kKeys,
                                          .defaults = kDefaults,
                                          .assumed = kAssumed};

}  // namespace wtool
