#pragma once
#include <string>

#include "formats/hf/model_view.h"

namespace wtool {

struct GgufViewOptions {
  std::string arch;       // the class to take config.json for; "": the one it names
  std::string pre;        // the pre-tokenizer; "": by tokenizer.json
  bool no_vocab = false;  // without a tokenizer
};

// A Hugging Face folder as the GGUF that llama.cpp runs: ggml's names and order of elements, its
// metadata, its tokenizer. Norms and what else must not be small is f32; all else keeps its type.
// Reads the JSON files beside the weights, and no tensor. Throws with every tensor that does not
// map, is missing, or has another shape than config.json says.
ModelView gguf_view(std::shared_ptr<const Model> folder, const GgufViewOptions& options);

// What llama.cpp wants in f32 whatever the type of the rest: norms, biases, routers, positions.
bool is_f32_only(std::string_view gguf_name, std::size_t rank) noexcept;

// A folder of safetensors, which is taken for a model.
bool is_hf_folder(const Model& model);

}  // namespace wtool
