#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "formats/hf/tokenizer.h"

namespace wtool {

// What there is to know of each architecture to get from a Hugging Face folder to the GGUF that
// llama.cpp runs, and back: nothing but data, in architectures/, a file for each family. Facts from
// llama.cpp's converter (conversion/*.py, gguf-py/gguf/tensor_mapping.py) and its loader
// (src/models/*.cpp), v0.5.0.

// A formula over config.json: alternatives from left to right, of which the first that has all its
// parts counts: "head_dim | hidden_size / num_attention_heads". A part is a number, or a key; a
// dotted one leads into objects. + - * / from left to right; / rounds down.
using Formula = std::string_view;

// How a tensor's elements move.
enum class Move : std::uint8_t {
  Same,
  PermuteHeads,    // rows of each query head from halves to pairs
  PermuteKvHeads,  // likewise of the heads of keys
  Transpose,       // Conv1D keeps [in, out]
  Stack,           // one of a layer's experts: all of them in one tensor
  Halves,          // [n, 2·m, k]: the first m rows of each, then the others: two outputs
  // gpt-oss, of all a layer's experts: every second row, two outputs; what is no blocks,
  // transposed.
  Interleaved,
  TransposeExperts,  // only that
  SplitKvB,          // MLA's kv_b: [heads, nope + v, rank]; keys transposed, values: two outputs
};
enum class Presence : std::uint8_t {
  Always,
  Optional,
  // Of a layer's tensors either all Dense or all Experts are there.
  Dense,
  Experts,
  // Of these, too, one or the other: a query projection, and one by way of a low rank.
  Direct,
  LowRank,
};
// Of a module with a weight. None: llama.cpp refuses files that have one.
enum class Bias : std::uint8_t { None, Optional, Required };

inline constexpr Presence kAlways = Presence::Always;
inline constexpr Move kSame = Move::Same;

struct TensorRow {
  // The module without the model's prefix and ".weight": {L} is a layer, {X} an expert.
  std::string_view hf;
  std::string_view
      gguf;  // of two outputs both, with a comma; ends in ".bias" if that is what it is
  // The weight's dimensions as letters of kDimensions, '*' for any: "Q,H". "": not checked.
  std::string_view shape = {};
  Presence presence = kAlways;
  Move move = kSame;
  Bias bias = Bias::None;
};

// A tensor that llama.cpp has no use for. '*' stands for anything.
struct DropRow {
  std::string_view hf, why;
  Formula when = {};  // only if it is there and is not 0; "": always
};

enum class KeyType : std::uint8_t {
  U32,
  F32,
  Bool,
  RopeScaling,  // rope.scaling.*: what belongs to the kind of scaling
  Gating,       // the name of a function
  Pooling,      // from modules.json
  FileType,     // general.file_type
};
struct KeyRow {
  std::string_view key;  // without "{arch}."; in full if it begins with "general."
  KeyType type;
  Formula from = {};
  bool required = false;     // the loader refuses the file, or aborts, without it
  Formula left_out_if = {};  // it is 1
};

// What the class assumes where config.json says nothing: transformers' configuration classes.
struct DefaultRow {
  std::string_view key;
  double value;
  std::string_view text = {};  // instead
};

// What llama.cpp computes whatever config.json says. Where that says otherwise, people are told.
struct AssumedRow {
  Formula config;
  double value;
};

using TensorTable = std::span<const TensorRow>;
using KeyTable = std::span<const KeyRow>;

struct Architecture {
  std::string_view name;                      // general.architecture
  std::span<const std::string_view> classes;  // of config.json's "architectures"
  std::string_view model_type;                // of config.json, of the first class
  TokenizerPath tokenizer;
  std::span<const std::string_view> prefixes;  // that names may have: "model."
  // Tables in a row, since architectures share parts: a tensor takes the first row that has its
  // name, keys are written in this order.
  std::span<const TensorTable> tensors;
  std::span<const KeyTable> keys;
  std::span<const DefaultRow> defaults = {};
  std::span<const AssumedRow> assumed = {};
  std::span<const DropRow> drops = {};
  std::span<const std::string_view> ignored_keys = {};
  bool norms_plus_one = false;   // weights of norms are kept as their distance from 1
  bool rope_freqs = false;       // scaling of kind llama3 becomes a tensor
  bool rope_factors = false;     // scaling of kind longrope becomes two
  bool back = false;             // from GGUF to a folder, too
  bool of_experts = false;       // of several of one name: the one with experts
  bool trims_embedding = false;  // rows of the embedding beyond the tokenizer's are left out
};

// The first of a name is the one that a GGUF file of it turns back into, unless its keys say more.
std::span<const Architecture* const> all_architectures() noexcept;
// null: not known
const Architecture* architecture_of_class(std::string_view hf_class) noexcept;
const Architecture* architecture_named(std::string_view gguf_name) noexcept;

// What letters in TensorRow::shape stand for.
struct Dimension {
  char letter;
  Formula size;
};
std::span<const Dimension> all_dimensions() noexcept;
// Tensors of modules that see or hear, which text models leave out.
std::span<const std::string_view> foreign_parts() noexcept;
std::span<const std::string_view> foreign_starts() noexcept;

}  // namespace wtool
