#include "lib/numeric/policy.h"

#include <algorithm>
#include <array>

namespace wtool {
namespace {

// How a rule's words are held against the module's name (the name without ".weight").
enum class Match : std::uint8_t {
  Module,    // all of it
  Start,     // it begins so
  Last,      // its last dot-separated part
  Part,      // any of its parts
  LastHas,   // its last part has these letters in it
  LastWord,  // a word of its last part ends so: "input_layernorm", "norm1", "q_norm", "LayerNorm",
             // but neither "normal" nor "renormalize"
  Anywhere,  // it has these letters in it
};
struct NameRule {
  Match match;
  std::string_view words, reason;
};

constexpr std::string_view kNorm = "norm", kBias = "bias", kEmbedding = "embedding", kHead = "head",
                           kRouter = "router", kVision = "vision", kAudio = "audio", kConv = "conv",
                           kMtp = "multi-token prediction", kSmall = "small and sensitive",
                           kAdapter = "adapter", kVector = "1-D", kStack = "3-D",
                           kNotWeight = "not a weight", kConv1D = "Conv1D [in, out]",
                           kMaybeConv1D = "may be Conv1D [in, out]";

// Names of transformers' and diffusers' modules. The first rule that matches gives the reason, so
// what a tensor belongs to (vision tower, router) comes before what it is.
constexpr NameRule kHuggingFace[] = {
    {Match::Part, "vision_tower", kVision},
    {Match::Part, "vision_model", kVision},
    {Match::Part, "vision_encoder", kVision},
    {Match::Part, "visual", kVision},
    {Match::Part, "image_encoder", kVision},
    {Match::Part, "img_processor", kVision},
    {Match::Part, "img_projection", kVision},
    {Match::Part, "multi_modal_projector", kVision},
    {Match::Part, "mm_projector", kVision},
    {Match::Part, "vision_projector", kVision},
    {Match::Part, "vision_projection", kVision},
    {Match::Part, "embed_vision", kVision},
    {Match::Part, "audio_tower", kAudio},
    {Match::Part, "audio_model", kAudio},
    {Match::Part, "audio_encoder", kAudio},
    {Match::Part, "audio_projector", kAudio},
    {Match::Part, "embed_audio", kAudio},
    {Match::Part, "mtp", kMtp},
    {Match::Last, "eh_proj", kMtp},  // joins embedding and hidden state before DeepSeek's MTP layer

    {Match::Part, "router", kRouter},
    {Match::Last, "gate", kRouter},
    {Match::Last, "shared_expert_gate", kRouter},

    {Match::Last, "lm_head", kHead},
    {Match::Last, "embed_out", kHead},  // GPT-NeoX
    {Match::Last, "score", kHead},
    {Match::Last, "classifier", kHead},
    {Match::Last, "qa_outputs", kHead},
    {Match::Last, "head", kHead},
    {Match::Last, "v_head", kHead},
    {Match::Part, "classification_head", kHead},
    {Match::Module, "output", kHead},    // Meta's Llama, InternLM2
    {Match::Module, "proj_out", kHead},  // Whisper; in diffusion models the last layer

    {Match::LastWord, "embed", kEmbedding},  // embed_tokens
    {Match::LastWord, "embedding", kEmbedding},
    {Match::LastWord, "embeddings", kEmbedding},  // word_embeddings, tok_embeddings
    {Match::Last, "wte", kEmbedding},
    {Match::Last, "wpe", kEmbedding},
    {Match::Last, "shared", kEmbedding},  // T5
    {Match::Last, "relative_attention_bias", kEmbedding},

    {Match::LastWord, "norm", kNorm},
    {Match::LastHas, "ln_", kNorm},

    {Match::LastHas, "conv1d", kConv},   // Mamba's, where a format has dropped its middle dimension
    {Match::Last, "in_proj_a", kSmall},  // gates of Gated DeltaNet: they dominate the loss
    {Match::Last, "in_proj_b", kSmall},
    {Match::Last, "in_proj_ba", kSmall},
    {Match::LastHas, "lora_", kAdapter},
};

// llama.cpp's names: what its own quantiser leaves alone, and token embedding and output, for which
// its mixes choose types of their own.
constexpr NameRule kGgml[] = {
    {Match::Start, "v.", kVision},
    {Match::Start, "mm.", kVision},
    {Match::Start, "sam.", kVision},
    {Match::Start, "a.", kAudio},
    {Match::Anywhere, ".rel_pos", kVision},
    {Match::Anywhere, ".patch_embd", kVision},
    {Match::Anywhere, ".patch_merger", kVision},

    {Match::Anywhere, "_norm", kNorm},
    {Match::Anywhere, "ffn_gate_inp", kRouter},
    {Match::Anywhere, "ffn_gate_tid2eid", kRouter},

    {Match::Module, "output", kHead},
    {Match::Module, "cls", kHead},
    {Match::Module, "cls.output", kHead},

    {Match::Module, "token_embd", kEmbedding},
    {Match::Module, "per_layer_token_embd", kEmbedding},
    {Match::Module, "token_types", kEmbedding},
    {Match::Anywhere, "position_embd", kEmbedding},
    {Match::Anywhere, "attn_rel_b", kEmbedding},

    {Match::Last, "ssm_conv1d", kConv},
    {Match::Anywhere, "shortconv.conv", kConv},

    {Match::Anywhere, "nextn.eh_proj", kMtp},
    {Match::Anywhere, "altup", kSmall},
    {Match::Anywhere, "laurel", kSmall},
    {Match::Anywhere, "per_layer_model_proj", kSmall},
    {Match::Anywhere, "indexer.k_proj", kSmall},
    {Match::Anywhere, "indexer.q_proj", kSmall},
    {Match::Last, "time_mix_first", kSmall},  // RWKV's vectors and low-rank pairs
    {Match::Last, "time_mix_w0", kSmall},
    {Match::Last, "time_mix_w1", kSmall},
    {Match::Last, "time_mix_w2", kSmall},
    {Match::Last, "time_mix_v0", kSmall},
    {Match::Last, "time_mix_v1", kSmall},
    {Match::Last, "time_mix_v2", kSmall},
    {Match::Last, "time_mix_a0", kSmall},
    {Match::Last, "time_mix_a1", kSmall},
    {Match::Last, "time_mix_a2", kSmall},
    {Match::Last, "time_mix_g1", kSmall},
    {Match::Last, "time_mix_g2", kSmall},
    {Match::Last, "time_mix_decay_w1", kSmall},
    {Match::Last, "time_mix_decay_w2", kSmall},
    {Match::Last, "time_mix_lerp_fused", kSmall},
};

// What llama.cpp's quantiser leaves alone, by the name with its ".weight".
constexpr NameRule kMixGgml[] = {
    {Match::Anywhere, "_norm.weight", kNorm},
    {Match::Anywhere, "ffn_gate_inp.weight", kRouter},
    {Match::Anywhere, "ffn_gate_tid2eid.weight", kRouter},
    {Match::Anywhere, "altup", kSmall},
    {Match::Anywhere, "laurel", kSmall},
    {Match::Anywhere, "per_layer_model_proj", kSmall},
    {Match::Module, "position_embd.weight", kEmbedding},
    {Match::Module, "token_types.weight", kEmbedding},
    {Match::Anywhere, "ssm_conv1d", kConv},
    {Match::Anywhere, "shortconv.conv.weight", kConv},
    {Match::Anywhere, "indexer.k_proj.weight", kSmall},
    {Match::Anywhere, "indexer.q_proj.weight", kSmall},
    {Match::Anywhere, "time_mix_first.weight", kSmall},
    {Match::Anywhere, "time_mix_w0.weight", kSmall},
    {Match::Anywhere, "time_mix_w1.weight", kSmall},
    {Match::Anywhere, "time_mix_w2.weight", kSmall},
    {Match::Anywhere, "time_mix_v0.weight", kSmall},
    {Match::Anywhere, "time_mix_v1.weight", kSmall},
    {Match::Anywhere, "time_mix_v2.weight", kSmall},
    {Match::Anywhere, "time_mix_a0.weight", kSmall},
    {Match::Anywhere, "time_mix_a1.weight", kSmall},
    {Match::Anywhere, "time_mix_a2.weight", kSmall},
    {Match::Anywhere, "time_mix_g1.weight", kSmall},
    {Match::Anywhere, "time_mix_g2.weight", kSmall},
    {Match::Anywhere, "time_mix_decay_w1.weight", kSmall},
    {Match::Anywhere, "time_mix_decay_w2.weight", kSmall},
    {Match::Anywhere, "time_mix_lerp_fused.weight", kSmall},
    {Match::Anywhere, "attn_rel_b.weight", kEmbedding},
    {Match::Anywhere, ".position_embd", kVision},
    {Match::Anywhere, "sam.pos_embd", kVision},
    {Match::Anywhere, "sam.neck.", kVision},
    {Match::Anywhere, "sam.net_", kVision},
    {Match::Anywhere, ".rel_pos", kVision},
    {Match::Anywhere, ".patch_embd", kVision},
    {Match::Anywhere, ".patch_merger", kVision},
    {Match::Anywhere, "a.rvq.codebook", kAudio},
    {Match::Anywhere, "mm.a.code_embd", kAudio},
};

std::string_view last_part(std::string_view name) noexcept {
  return name.substr(name.rfind('.') + 1);  // npos + 1 is 0
}

bool has_part(std::string_view name, std::string_view part) noexcept {
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('.', at), name.size());
    if (name.substr(at, end - at) == part) return true;
    at = end + 1;
  }
  return false;
}

// `word` is lower case. Digits at the end of a word don't count.
bool has_word_ending(std::string_view part, std::string_view word) noexcept {
  for (std::size_t at = 0; at <= part.size();) {
    const std::size_t end = std::min(part.find('_', at), part.size());
    std::string_view w = part.substr(at, end - at);
    while (!w.empty() && w.back() >= '0' && w.back() <= '9') w.remove_suffix(1);
    const auto same = [](char a, char b) {
      return a == b || (a >= 'A' && a <= 'Z' && a - 'A' + 'a' == b);
    };
    if (w.size() >= word.size() && std::ranges::equal(w.substr(w.size() - word.size()), word, same))
      return true;
    at = end + 1;
  }
  return false;
}

bool matches(const NameRule& rule, std::string_view module) noexcept {
  switch (rule.match) {
    case Match::Module: return module == rule.words;
    case Match::Start: return module.starts_with(rule.words);
    case Match::Last: return last_part(module) == rule.words;
    case Match::Part: return has_part(module, rule.words);
    case Match::LastWord: return has_word_ending(last_part(module), rule.words);
    case Match::LastHas: return last_part(module).find(rule.words) != std::string_view::npos;
    case Match::Anywhere: return module.find(rule.words) != std::string_view::npos;
  }
  return false;
}

// What is no plain float is not quantised again.
std::optional<std::string_view> by_type(DType dtype) noexcept {
  switch (info(dtype).kind) {
    case Kind::Float:
      if (dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F32 || dtype == DType::F64)
        return std::nullopt;
      return "already quantized";
    case Kind::Block: return "already quantized";
    case Kind::Int: return "integer";
    case Kind::Bool: return "bool";
    case Kind::Complex: return "complex";
    case Kind::Opaque: return "opaque";
  }
  return std::nullopt;
}

// GPT-2's "Conv1D" is a linear layer stored the other way round. Other models have the same names
// for ordinary ones, so the shape decides; where it is square, it cannot.
std::optional<std::string_view> conv1d(std::string_view module, ShapeView shape) noexcept {
  const std::string_view last = last_part(module);
  if (last != "c_attn" && last != "c_fc" && last != "c_proj" && last != "q_attn")
    return std::nullopt;
  if (shape[0] == shape[1]) return kMaybeConv1D;
  const bool widens = last == "c_attn" || last == "c_fc";
  return (widens == (shape[1] > shape[0])) ? std::optional(kConv1D) : std::nullopt;
}

// For what is not a matrix (in GGUF, not a matrix or a stack of them).
std::string_view by_rank(std::size_t rank, std::string_view module) noexcept {
  if (rank <= 1) return kVector;
  if (rank == 3 && module.find("conv") == std::string_view::npos) return kStack;
  return kConv;
}

}  // namespace

std::optional<std::string_view> keep_reason(std::string_view name, DType dtype, ShapeView shape,
                                            NameStyle style) noexcept {
  constexpr std::string_view kWeight = ".weight";
  if (const auto reason = by_type(dtype)) return reason;
  if (name.ends_with(kBias)) return kBias;
  const bool is_weight = name.ends_with(kWeight);
  const std::string_view module = is_weight ? name.substr(0, name.size() - kWeight.size()) : name;

  const bool ggml = style == NameStyle::Ggml;
  const auto rules = ggml ? std::span<const NameRule>(kGgml) : std::span(kHuggingFace);
  const auto rule =
      std::ranges::find_if(rules, [&](const NameRule& r) { return matches(r, module); });
  if (rule != rules.end()) return rule->reason;

  // GGUF keeps the experts of a layer in one tensor, and its block types do not mind.
  const bool fits = shape.size() == 2 || (ggml && shape.size() == 3);
  if (!fits) return by_rank(shape.size(), module);
  if (!is_weight) return kNotWeight;
  if (shape.size() == 2 && !ggml) return conv1d(module, shape);
  return std::nullopt;
}

std::optional<std::string_view> mix_keep_reason(std::string_view name, DType dtype,
                                                ShapeView shape) noexcept {
  // Blocks may be quantised again: whether they are is asked elsewhere.
  const DType type = info(dtype).kind == Kind::Block ? DType::F32 : dtype;
  if (const auto reason = by_type(type)) return reason;
  const auto rule =
      std::ranges::find_if(kMixGgml, [&](const NameRule& r) { return matches(r, name); });
  if (rule != std::end(kMixGgml)) return rule->reason;
  // ggml drops trailing dimensions of 1, which are leading ones here.
  const auto first = std::ranges::find_if(shape, [](std::uint64_t d) { return d != 1; });
  const auto rank = static_cast<std::size_t>(shape.end() - first);
  if (rank < 2) return kVector;
  if (rank > 3) return kConv;
  if (!name.ends_with("weight")) return name.ends_with(kBias) ? kBias : kNotWeight;
  return std::nullopt;
}

}  // namespace wtool
