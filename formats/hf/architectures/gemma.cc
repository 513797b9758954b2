// Gemma 1 to 3, of the third the part that reads. Norms are kept as their distance from 1.
// conversion/gemma.py; src/models/gemma{,2,3}.cpp
#include "formats/hf/architectures/families.h"

namespace wtool {
namespace {

using enum KeyType;

constexpr TensorRow kNormsAround[] = {
    {"layers.{L}.post_attention_layernorm", "blk.{L}.post_attention_norm", "H"},
    {"layers.{L}.pre_feedforward_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.post_feedforward_layernorm", "blk.{L}.post_ffw_norm", "H"},
};
constexpr TensorTable kGemmaTensors[] = {kEnds, kHalves, kAttentionOutput, kNormBefore, kGated},
                      kGemma2Tensors[] = {kEnds, kHalves, kAttentionOutput, kNormsAround, kGated},
                      kGemma3Tensors[] = {kEnds,      kHalves,      kAttentionOutput,
                                          kHeadNorms, kNormsAround, kGated};
constexpr DropRow kDrops[] = {{"lm_head*", "Gemma's output is its embedding"}};

constexpr KeyRow kOwn[] = {
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
constexpr KeyRow kGemma2Own[] = {
    {"attn_logit_softcapping", F32, "attn_logit_softcapping", true},
    {"final_logit_softcapping", F32, "final_logit_softcapping", true},
    {"attention.sliding_window", U32, "sliding_window", true},
};
constexpr KeyRow kGemma3Own[] = {
    {"rope.freq_base", F32, "rope.rope_theta", true},
    {"final_logit_softcapping", F32, "final_logit_softcapping"},
    // A pattern of 1: no layer has a window.
    {"attention.sliding_window", U32, "sliding_window", true, "sliding_window_pattern"},
};

constexpr KeyTable kGemmaKeys[] = {kOwn}, kGemma2Keys[] = {kOwn, kGemma2Own},
                   kGemma3Keys[] = {kCommonKeys, kGemma3Own};

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

constexpr AssumedRow kAssumed[] = {{"rope.rope_theta", 10000}};

constexpr std::string_view kGemmaClasses[] = {"GemmaForCausalLM"},
                           kGemma2Classes[] = {"Gemma2ForCausalLM"},
                           kGemma3Classes[] = {"Gemma3ForCausalLM",
                                               "Gemma3ForConditionalGeneration"};

}  // namespace

constinit const Architecture kGemma{.name = "gemma",
                                    .classes = kGemmaClasses,
                                    .model_type = "gemma",
                                    .tokenizer = TokenizerPath::SentencePiece,
                                    .prefixes = kModelPrefix,
                                    .tensors = kGemmaTensors,
                                    .keys = kGemmaKeys,
                                    .defaults = kGemmaDefaults,
                                    .assumed = kAssumed,
                                    .drops = kDrops,
                                    .norms_plus_one = true,
                                    .back = true};
constinit const Architecture kGemma2{.name = "gemma2",
                                     .classes = kGemma2Classes,
                                     .model_type = "gemma2",
                                     .tokenizer = TokenizerPath::SentencePiece,
                                     .prefixes = kModelPrefix,
                                     .tensors = kGemma2Tensors,
                                     .keys = kGemma2Keys,
                                     .defaults = kGemma2Defaults,
                                     .assumed = kAssumed,
                                     .drops = kDrops,
                                     .norms_plus_one = true,
                                     .back = true};
constinit const Architecture kGemma3{.name = "gemma3",
                                     .classes = kGemma3Classes,
                                     .model_type = "gemma3_text",
                                     .tokenizer = TokenizerPath::SentencePieceElseBpe,
                                     .prefixes = kModelPrefix,
                                     .tensors = kGemma3Tensors,
                                     .keys = kGemma3Keys,
                                     .defaults = kGemma3Defaults,
                                     .norms_plus_one = true,
                                     .back = true,
                                     .trims_embedding = true};

}  // namespace wtool
