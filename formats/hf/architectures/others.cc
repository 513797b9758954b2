// Phi-3, GPT-2, StarCoder2. conversion/{phi,gpt2,starcoder}.py;
// src/models/{phi3,gpt2,starcoder2}.cpp
#include "formats/hf/architectures/families.h"

namespace wtool {
namespace {

using enum Presence;
using enum KeyType;

// ---- Phi-3: queries, keys and values stay one matrix, and so do gate and up.

constexpr TensorRow kPhi3Own[] = {
    {"layers.{L}.self_attn.qkv_proj", "blk.{L}.attn_qkv", "W,H", Always, kSame, Bias::Optional},
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,H"},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H"},
    {"layers.{L}.mlp.gate_up_proj", "blk.{L}.ffn_up", "U,H"},
    {"layers.{L}.mlp.down_proj", "blk.{L}.ffn_down", "H,F"},
};
constexpr TensorTable kPhi3Tensors[] = {kEnds, kPhi3Own};
constexpr KeyRow kPhi3OwnKeys[] = {
    {"context_length", U32, "n_positions | max_position_embeddings", true},
    {"rope.scaling.original_context_length", U32,
     "rope.original_max_position_embeddings | original_max_position_embeddings | "
     "max_position_embeddings",
     true},
    {"embedding_length", U32, "hidden_size | n_embd", true},
    {"feed_forward_length", U32, "intermediate_size", true},
    {"block_count", U32, kLayers, true},
    {"attention.head_count", U32, "num_attention_heads | n_head", true},
    {"attention.head_count_kv", U32, "num_key_value_heads | n_head_kv | num_attention_heads", true},
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
constexpr KeyTable kPhi3Keys[] = {kPhi3OwnKeys};
constexpr DefaultRow kPhi3Defaults[] = {{"max_position_embeddings", 4096},
                                        {"original_max_position_embeddings", 4096},
                                        {"rms_norm_eps", 1e-5},
                                        {"rope_theta", 10000},
                                        {"vocab_size", 32064}};
constexpr AssumedRow kPhi3Assumed[] = {kNoWindow};

// ---- GPT-2: Conv1D keeps its matrices the other way round.

constexpr TensorRow kGpt2Own[] = {
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
constexpr TensorTable kGpt2Tensors[] = {kGpt2Own};
constexpr DropRow kGpt2Drops[] = {{"h.*.attn.bias", "a causal mask, not a weight"},
                                  {"h.*.attn.masked_bias", "a causal mask, not a weight"}};
constexpr KeyRow kGpt2OwnKeys[] = {
    {"block_count", U32, kLayers, true},
    {"context_length", U32, "n_ctx | n_positions", true},
    {"embedding_length", U32, "n_embd", true},
    {"feed_forward_length", U32, "n_inner | 4 * n_embd", true},
    {"attention.head_count", U32, "n_head", true},
    {"attention.layer_norm_epsilon", F32, "layer_norm_epsilon", true},
    {"general.file_type", FileType},
};
constexpr KeyTable kGpt2Keys[] = {kGpt2OwnKeys};
constexpr DefaultRow kGpt2Defaults[] = {{"n_positions", 1024}, {"layer_norm_epsilon", 1e-5},
                                        {"n_embd", 768},       {"n_head", 12},
                                        {"n_layer", 12},       {"vocab_size", 50257}};
constexpr AssumedRow kGpt2Assumed[] = {{"scale_attn_weights", 1},
                                       {"scale_attn_by_inverse_layer_idx", 0}};

// ---- StarCoder2: layer norms, biases everywhere, no gate.

constexpr TensorRow kStarcoder2Own[] = {
    {"embed_tokens", "token_embd", "V,H"},
    {"norm", "output_norm", "H", Always, kSame, Bias::Required},
    {"lm_head", "output", "V,H", Optional},
    {"layers.{L}.input_layernorm", "blk.{L}.attn_norm", "H", Always, kSame, Bias::Required},
    {"layers.{L}.self_attn.q_proj", "blk.{L}.attn_q", "Q,H", Always, kSame, Bias::Optional},
    {"layers.{L}.self_attn.k_proj", "blk.{L}.attn_k", "K,H", Always, kSame, Bias::Optional},
    {"layers.{L}.self_attn.v_proj", "blk.{L}.attn_v", "K,H", Always, kSame, Bias::Optional},
    {"layers.{L}.self_attn.o_proj", "blk.{L}.attn_output", "H,Q", Always, kSame, Bias::Required},
    {"layers.{L}.post_attention_layernorm", "blk.{L}.ffn_norm", "H", Always, kSame, Bias::Required},
    {"layers.{L}.mlp.c_fc", "blk.{L}.ffn_up", "F,H", Always, kSame, Bias::Required},
    {"layers.{L}.mlp.c_proj", "blk.{L}.ffn_down", "H,F", Always, kSame, Bias::Required},
};
constexpr TensorTable kStarcoder2Tensors[] = {kStarcoder2Own};
constexpr KeyTable kStarcoder2Keys[] = {kCommonKeys};
constexpr DefaultRow kStarcoder2Defaults[] = {{"max_position_embeddings", 4096},
                                              {"num_key_value_heads", 2},
                                              {"norm_epsilon", 1e-5},
                                              {"rope_theta", 10000},
                                              {"vocab_size", 49152}};
constexpr AssumedRow kStarcoder2Assumed[] = {kWholeHeadTurns, kNoWindow};

constexpr std::string_view kTransformer[] = {"transformer."};
constexpr std::string_view kPhi3Classes[] = {"Phi3ForCausalLM"},
                           kGpt2Classes[] = {"GPT2LMHeadModel"},
                           kStarcoder2Classes[] = {"Starcoder2ForCausalLM"};

}  // namespace

constinit const Architecture kPhi3{.name = "phi3",
                                   .classes = kPhi3Classes,
                                   .model_type = "phi3",
                                   .tokenizer = TokenizerPath::SentencePiece,
                                   .prefixes = kModelPrefix,
                                   .tensors = kPhi3Tensors,
                                   .keys = kPhi3Keys,
                                   .defaults = kPhi3Defaults,
                                   .assumed = kPhi3Assumed,
                                   .rope_factors = true,
                                   .back = true};
constinit const Architecture kGpt2{.name = "gpt2",
                                   .classes = kGpt2Classes,
                                   .model_type = "gpt2",
                                   .tokenizer = TokenizerPath::Bpe,
                                   .prefixes = kTransformer,
                                   .tensors = kGpt2Tensors,
                                   .keys = kGpt2Keys,
                                   .defaults = kGpt2Defaults,
                                   .assumed = kGpt2Assumed,
                                   .drops = kGpt2Drops};
constinit const Architecture kStarcoder2{.name = "starcoder2",
                                         .classes = kStarcoder2Classes,
                                         .model_type = "starcoder2",
                                         .tokenizer = TokenizerPath::Bpe,
                                         .prefixes = kModelPrefix,
                                         .tensors = kStarcoder2Tensors,
                                         .keys = kStarcoder2Keys,
                                         .defaults = kStarcoder2Defaults,
                                         .assumed = kStarcoder2Assumed};

}  // namespace wtool
