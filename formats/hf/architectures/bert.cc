// Encoders: BERT, and Nomic's with a rotary embedding. conversion/bert.py; src/models/bert.cpp
#include "formats/hf/architectures/families.h"

namespace wtool {
namespace {

using enum Presence;
using enum KeyType;

constexpr TensorRow kBertOwn[] = {
    {"embeddings.word_embeddings", "token_embd", "V,H"},
    {"embeddings.position_embeddings", "position_embd", "P,H"},
    {"embeddings.token_type_embeddings", "token_types", "T,H", Optional},
    {"embeddings.LayerNorm", "token_embd_norm", "H", Always, kSame, Bias::Required},
    {"encoder.layer.{L}.attention.self.query", "blk.{L}.attn_q", "H,H", Always, kSame,
     Bias::Optional},
    {"encoder.layer.{L}.attention.self.key", "blk.{L}.attn_k", "H,H", Always, kSame,
     Bias::Optional},
    {"encoder.layer.{L}.attention.self.value", "blk.{L}.attn_v", "H,H", Always, kSame,
     Bias::Optional},
    {"encoder.layer.{L}.attention.output.dense", "blk.{L}.attn_output", "H,H", Always, kSame,
     Bias::Optional},
    {"encoder.layer.{L}.attention.output.LayerNorm", "blk.{L}.attn_output_norm", "H", Always, kSame,
     Bias::Required},
    {"encoder.layer.{L}.intermediate.dense", "blk.{L}.ffn_up", "F,H", Always, kSame,
     Bias::Optional},
    {"encoder.layer.{L}.output.dense", "blk.{L}.ffn_down", "H,F", Always, kSame, Bias::Optional},
    {"encoder.layer.{L}.output.LayerNorm", "blk.{L}.layer_output_norm", "H", Always, kSame,
     Bias::Required},
};
constexpr TensorTable kBertTensors[] = {kBertOwn};
constexpr TensorRow kNomicOwn[] = {
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
constexpr TensorTable kNomicTensors[] = {kNomicOwn};
constexpr DropRow kDrops[] = {{"embeddings.position_ids", "counts positions"},
                              {"pooler.*", "llama.cpp pools by itself"},
                              {"cls.*", "a head for training"}};

constexpr KeyRow kBertOwnKeys[] = {
    {"attention.causal", Bool, "0"},
    {"pooling_type", Pooling},
};
constexpr KeyTable kBertKeys[] = {kCommonKeys, kBertOwnKeys};
constexpr KeyRow kNomicOwnKeys[] = {
    // Trained for fewer than there is room for.
    {"context_length", U32, "max_trained_positions", true},
    {"attention.causal", Bool, "0"},
    {"pooling_type", Pooling},
};
constexpr KeyTable kNomicKeys[] = {kCommonKeys, kNomicOwnKeys};

constexpr DefaultRow kBertDefaults[] = {{"max_position_embeddings", 512},
                                        {"layer_norm_eps", 1e-12},
                                        {"type_vocab_size", 2},
                                        {"vocab_size", 30522}};
constexpr DefaultRow kNomicDefaults[] = {
    {"max_trained_positions", 2048}, {"layer_norm_epsilon", 1e-12}, {"rotary_emb_base", 10000}};

constexpr AssumedRow kBertAssumed[] = {{"is_decoder", 0}},
                     kNomicAssumed[] = {{"causal", 0},
                                        {"prenorm", 0},
                                        {"rotary_emb_fraction", 1},
                                        {"rotary_emb_interleaved", 0},
                                        {"rotary_emb_scale_base", 0}};

constexpr std::string_view kPrefix[] = {"bert."};
constexpr std::string_view kBertClasses[] = {"BertModel", "BertForMaskedLM"},
                           kNomicClasses[] = {"NomicBertModel"};

}  // namespace

constinit const Architecture kBert{.name = "bert",
                                   .classes = kBertClasses,
                                   .model_type = "bert",
                                   .tokenizer = TokenizerPath::WordPiece,
                                   .prefixes = kPrefix,
                                   .tensors = kBertTensors,
                                   .keys = kBertKeys,
                                   .defaults = kBertDefaults,
                                   .assumed = kBertAssumed,
                                   .drops = kDrops};
constinit const Architecture kNomicBert{.name = "nomic-bert",
                                        .classes = kNomicClasses,
                                        .model_type = "nomic_bert",
                                        .tokenizer = TokenizerPath::WordPiece,
                                        .prefixes = kPrefix,
                                        .tensors = kNomicTensors,
                                        .keys = kNomicKeys,
                                        .defaults = kNomicDefaults,
                                        .assumed = kNomicAssumed,
                                        .drops = kDrops};

}  // namespace wtool
