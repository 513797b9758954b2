// Llama and all that are built like it. Queries and keys are permuted: ggml's rotary embedding of
// these turns neighbours. conversion/llama.py, granite.py; src/models/{llama,granite,smollm3}.cpp
#include "formats/hf/architectures/families.h"

namespace wtool {
namespace {

using enum Presence;
using enum KeyType;

constexpr TensorRow kPairs[] = {
    {"layers.{L}.self_attn.q_proj", "blk.{L}.attn_q", "Q,H", Always, Move::PermuteHeads,
     Bias::Optional},
    {"layers.{L}.self_attn.k_proj", "blk.{L}.attn_k", "K,H", Always, Move::PermuteKvHeads,
     Bias::Optional},
    {"layers.{L}.self_attn.v_proj", "blk.{L}.attn_v", "K,H", Always, kSame, Bias::Optional},
};
// Behind attention and in the feed-forward part llama.cpp has biases for these alone.
constexpr TensorRow kWithBiases[] = {
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,Q", Always, kSame, Bias::Optional},
    {"layers.{L}.mlp.gate_proj", "blk.{L}.ffn_gate", "F,H", Dense, kSame, Bias::Optional},
    {"layers.{L}.mlp.up_proj", "blk.{L}.ffn_up", "F,H", Dense, kSame, Bias::Optional},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F", Dense, kSame, Bias::Optional},
};
constexpr TensorRow kMixtralExperts[] = {
    {"layers.{L}.block_sparse_moe.gate", "blk.{L}.ffn_gate_inp", "E,H", Experts},
    {"layers.{L}.block_sparse_moe.experts.{X}.w1", "blk.{L}.ffn_gate_exps", "F,H", Experts,
     Move::Stack},
    {"layers.{L}.block_sparse_moe.experts.{X}.w2", "blk.{L}.ffn_down_exps", "H,F", Experts,
     Move::Stack},
    {"layers.{L}.block_sparse_moe.experts.{X}.w3", "blk.{L}.ffn_up_exps", "F,H", Experts,
     Move::Stack},
};
constexpr TensorTable kDense[] = {kEnds, kPairs, kNormBefore, kWithBiases},
                      kExperts[] = {kEnds, kPairs, kNormBefore, kWithBiases, kMixtralExperts},
                      kSmollm3Tensors[] = {kEnds, kPairs, kAttentionOutput, kNormBefore, kGated};

constexpr KeyRow kOwn[] = {
    {"vocab_size", U32, "vocab_size", true},
    {"rope.dimension_count", U32, kHeadDim, true},
};
constexpr KeyRow kScales[] = {
    {"attention.scale", F32, "attention_multiplier"},
    {"embedding_scale", F32, "embedding_multiplier"},
    {"residual_scale", F32, "residual_multiplier"},
    {"logit_scale", F32, "logits_scaling", true},
};
constexpr KeyTable kKeys[] = {kCommonKeys, kOwn}, kGraniteKeys[] = {kCommonKeys, kOwn, kScales};

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

constexpr AssumedRow kLlamaAssumed[] = {kWholeHeadTurns},
                     kMistralAssumed[] = {kWholeHeadTurns, kNoWindow},
                     kSmollm3Assumed[] = {
                         kWholeHeadTurns, kNoWindowUsed, {"no_rope_layer_interval", 4}};

constexpr std::string_view kLlamaClasses[] = {"LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"},
                           kMistralClasses[] = {"MistralForCausalLM", "MistralModel"},
                           kMixtralClasses[] = {"MixtralForCausalLM"},
                           kGraniteClasses[] = {"GraniteForCausalLM"},
                           kSmollm3Classes[] = {"SmolLM3ForCausalLM"};
constexpr std::string_view kGraniteIgnored[] = {"head_dim"};

}  // namespace

constinit const Architecture kLlama{.name = "llama",
                                    .classes = kLlamaClasses,
                                    .model_type = "llama",
                                    .tokenizer = TokenizerPath::SentencePieceElseBpe,
                                    .prefixes = kModelPrefix,
                                    .tensors = kExperts,
                                    .keys = kKeys,
                                    .defaults = kLlamaDefaults,
                                    .assumed = kLlamaAssumed,
                                    .rope_freqs = true,
                                    .back = true};
constinit const Architecture kMistral{.name = "llama",
                                      .classes = kMistralClasses,
                                      .model_type = "mistral",
                                      .tokenizer = TokenizerPath::SentencePieceElseBpe,
                                      .prefixes = kModelPrefix,
                                      .tensors = kDense,
                                      .keys = kKeys,
                                      .defaults = kMistralDefaults,
                                      .assumed = kMistralAssumed,
                                      .rope_freqs = true};
constinit const Architecture kMixtral{.name = "llama",
                                      .classes = kMixtralClasses,
                                      .model_type = "mixtral",
                                      .tokenizer = TokenizerPath::SentencePieceElseBpe,
                                      .prefixes = kModelPrefix,
                                      .tensors = kExperts,
                                      .keys = kKeys,
                                      .defaults = kMixtralDefaults,
                                      .assumed = kMistralAssumed,
                                      .rope_freqs = true,
                                      .back = true,
                                      .of_experts = true};
constinit const Architecture kGranite{.name = "granite",
                                      .classes = kGraniteClasses,
                                      .model_type = "granite",
                                      .tokenizer = TokenizerPath::SentencePieceElseBpe,
                                      .prefixes = kModelPrefix,
                                      .tensors = kDense,
                                      .keys = kGraniteKeys,
                                      .defaults = kGraniteDefaults,
                                      .assumed = kLlamaAssumed,
                                      .ignored_keys = kGraniteIgnored,
                                      .rope_freqs = true};
constinit const Architecture kSmollm3{.name = "smollm3",
                                      .classes = kSmollm3Classes,
                                      .model_type = "smollm3",
                                      .tokenizer = TokenizerPath::SentencePieceElseBpe,
                                      .prefixes = kModelPrefix,
                                      .tensors = kSmollm3Tensors,
                                      .keys = kKeys,
                                      .defaults = kSmollm3Defaults,
                                      .assumed = kSmollm3Assumed};

}  // namespace wtool
