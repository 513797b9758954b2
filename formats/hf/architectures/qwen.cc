// Qwen 2 and 3, dense and with experts. conversion/qwen.py; src/models/qwen{2,3}{,moe}.cpp
#include "formats/hf/architectures/families.h"

namespace wtool {
namespace {

using enum KeyType;

// Experts one by one, or, of transformers 5, all in one tensor.
constexpr TensorRow kExperts[] = {
    {"layers.{L}.mlp.gate", "blk.{L}.ffn_gate_inp", "E,H"},
    {"layers.{L}.mlp.experts.{X}.down_proj", "blk.{L}.ffn_down_exps", "H,M", kAlways, Move::Stack},
    {"layers.{L}.mlp.experts.{X}.gate_proj", "blk.{L}.ffn_gate_exps", "M,H", kAlways, Move::Stack},
    {"layers.{L}.mlp.experts.{X}.up_proj", "blk.{L}.ffn_up_exps", "M,H", kAlways, Move::Stack},
    {"layers.{L}.mlp.experts.down_proj", "blk.{L}.ffn_down_exps", "E,H,M"},
    {"layers.{L}.mlp.experts.gate_up_proj", "blk.{L}.ffn_gate_exps,blk.{L}.ffn_up_exps", "E,G,H",
     kAlways, Move::Halves},
};
constexpr TensorRow kSharedExpert[] = {
    {"layers.{L}.mlp.shared_expert.gate_proj", "blk.{L}.ffn_gate_shexp", "S,H"},
    {"layers.{L}.mlp.shared_expert.up_proj", "blk.{L}.ffn_up_shexp", "S,H"},
    {"layers.{L}.mlp.shared_expert.down_proj", "blk.{L}.ffn_down_shexp", "H,S"},
    {"layers.{L}.mlp.shared_expert_gate", "blk.{L}.ffn_gate_inp_shexp", "1,H"},
};
constexpr TensorTable kQwen2Tensors[] = {kEnds, kHalves, kAttentionOutput, kNormBefore, kGated},
                      kQwen2MoeTensors[] = {kEnds,       kHalves,  kAttentionOutput,
                                            kNormBefore, kExperts, kSharedExpert},
                      kQwen3Tensors[] = {kEnds,      kHalves,     kAttentionOutput,
                                         kHeadNorms, kNormBefore, kGated},
                      kQwen3MoeTensors[] = {kEnds,      kHalves,     kAttentionOutput,
                                            kHeadNorms, kNormBefore, kExperts};

constexpr KeyRow kDenseOwn[] = {{"pooling_type", Pooling}};
constexpr KeyRow kMoeOwn[] = {
    {"expert_feed_forward_length", U32, "moe_intermediate_size"},
    {"expert_shared_feed_forward_length", U32, "shared_expert_intermediate_size"},
};

constexpr KeyTable kDenseKeys[] = {kCommonKeys, kDenseOwn}, kMoeKeys[] = {kCommonKeys, kMoeOwn};

constexpr DefaultRow kQwen2Defaults[] = {{"max_position_embeddings", 32768},
                                         {"rms_norm_eps", 1e-6},
                                         {"rope_theta", 10000},
                                         {"vocab_size", 151936}};
constexpr DefaultRow kQwen2MoeDefaults[] = {{"max_position_embeddings", 32768},
                                            {"rms_norm_eps", 1e-6},
                                            {"rope_theta", 10000},
                                            {"vocab_size", 151936},
                                            {"num_experts", 60},
                                            {"num_experts_per_tok", 4},
                                            {"moe_intermediate_size", 1408},
                                            {"shared_expert_intermediate_size", 5632}};
constexpr DefaultRow kQwen3Defaults[] = {{"max_position_embeddings", 32768},
                                         {"rms_norm_eps", 1e-6},
                                         {"rope_theta", 10000},
                                         {"head_dim", 128},
                                         {"vocab_size", 151936}};
// Unlike the dense one's, its class has no head_dim.
constexpr DefaultRow kQwen3MoeDefaults[] = {{"max_position_embeddings", 32768},
                                            {"num_key_value_heads", 4},
                                            {"rms_norm_eps", 1e-6},
                                            {"rope_theta", 10000},
                                            {"vocab_size", 151936},
                                            {"num_experts", 128},
                                            {"num_experts_per_tok", 8},
                                            {"moe_intermediate_size", 768},
                                            {"norm_topk_prob", 0}};

constexpr AssumedRow kDenseAssumed[] = {kWholeHeadTurns, kNoWindowUsed},
                     kQwen2MoeAssumed[] = {kWholeHeadTurns, kNoWindowUsed, {"norm_topk_prob", 0}},
                     kQwen3MoeAssumed[] = {kWholeHeadTurns, kNoWindowUsed, {"norm_topk_prob", 1}};

constexpr std::string_view kQwen2Classes[] = {"Qwen2ForCausalLM", "Qwen2Model"},
                           kQwen2MoeClasses[] = {"Qwen2MoeForCausalLM"},
                           kQwen3Classes[] = {"Qwen3ForCausalLM", "Qwen3Model"},
                           kQwen3MoeClasses[] = {"Qwen3MoeForCausalLM"};

}  // namespace

constinit const Architecture kQwen2{.name = "qwen2",
                                    .classes = kQwen2Classes,
                                    .model_type = "qwen2",
                                    .tokenizer = TokenizerPath::SentencePieceElseBpe,
                                    .prefixes = kModelPrefix,
                                    .tensors = kQwen2Tensors,
                                    .keys = kDenseKeys,
                                    .defaults = kQwen2Defaults,
                                    .assumed = kDenseAssumed,
                                    .back = true};
constinit const Architecture kQwen2Moe{.name = "qwen2moe",
                                       .classes = kQwen2MoeClasses,
                                       .model_type = "qwen2_moe",
                                       .tokenizer = TokenizerPath::Bpe,
                                       .prefixes = kModelPrefix,
                                       .tensors = kQwen2MoeTensors,
                                       .keys = kMoeKeys,
                                       .defaults = kQwen2MoeDefaults,
                                       .assumed = kQwen2MoeAssumed};
constinit const Architecture kQwen3{.name = "qwen3",
                                    .classes = kQwen3Classes,
                                    .model_type = "qwen3",
                                    .tokenizer = TokenizerPath::SentencePieceElseBpe,
                                    .prefixes = kModelPrefix,
                                    .tensors = kQwen3Tensors,
                                    .keys = kDenseKeys,
                                    .defaults = kQwen3Defaults,
                                    .assumed = kDenseAssumed,
                                    .back = true};
constinit const Architecture kQwen3Moe{.name = "qwen3moe",
                                       .classes = kQwen3MoeClasses,
                                       .model_type = "qwen3_moe",
                                       .tokenizer = TokenizerPath::Bpe,
                                       .prefixes = kModelPrefix,
                                       .tensors = kQwen3MoeTensors,
                                       .keys = kMoeKeys,
                                       .defaults = kQwen3MoeDefaults,
                                       .assumed = kQwen3MoeAssumed};

}  // namespace wtool
