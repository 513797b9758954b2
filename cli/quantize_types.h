#pragma once
#include <string>
#include <vector>

#include "lib/model/model.h"
#include "lib/numeric/mix.h"

namespace wtool {

// What the options of 'quantize' say about types, with the names people give them.

struct TypeOptions {
  bool fp16 = false, bf16 = false, int8 = false, int4 = false, w8a8 = false;
  std::string type;                // ggml type or mix
  std::vector<std::string> types;  // -T PATTERN=TYPE
  std::string recipe;              // a file of such rules
  bool pure = false, leave_output = false;
  std::string output_type, embedding_type;

  // Of safetensors' schemes.
  bool fp8 = false, nvfp4 = false, mxfp4 = false, mxfp8 = false, nf4 = false;
  unsigned bits = 0;  // integers; 0: not given
  bool block = false, asymmetric = false, signed_scales = false;
  std::string group_size, method, compat, scheme;
};

// What a tensor is to become.
struct Choice {
  enum class What : std::uint8_t { Keep, Cast, Scheme } what = What::Keep;
  DType dtype = DType::F32;   // Cast
  SchemeOptions scheme = {};  // Scheme
  // Scheme: the size of groups was not asked for, so that smaller ones may stand in.
  bool any_group = true;
};

// What is asked of the whole model: one choice for what the policy does not keep, or a mix.
struct Asked {
  Choice choice;
  const Mix* mix = nullptr;
  std::string label;  // names the output: "int8"
};
Asked asked_for(const TypeOptions& options, bool gguf);  // throws Usage
// The scheme that all of it is stored in: the one asked for, or what has such levels.
std::string_view scheme_for(const TypeOptions& options);
// Refuses options that do not go together, or not with the container. Throws Usage.
void check_scheme_options(const TypeOptions& options, bool gguf);

// What is asked of some tensors. Of several rules the last one that matches wins.
struct Override {
  std::string label;  // "-T attn_v=q6_k": the reason given
  Choice choice;
  std::vector<bool> matches;  // by logical tensor
  bool by_name = false;       // the pattern is a tensor's very name
};
// The recipe's, then those of -T, then those of the options for output and token embedding. Throws
// Usage: a type or pattern that is none, or one that matches nothing.
std::vector<Override> rules_of(const TypeOptions& options, const Model& model, NameStyle style,
                               bool gguf, bool allow_unmatched);

std::string writable_types();  // "q8_0, q6_k, …": ggml's block types that can be written

// What mixes ask about a model: from GGUF's keys, else from config.json, else from names and
// shapes.
MixFacts mix_facts(const Model& model, NameStyle style);

}  // namespace wtool
