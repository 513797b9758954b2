#pragma once
#include <vector>

#include "formats/hf/model_view.h"
#include "lib/model/plan.h"

namespace wtool {

// A GGUF file as the Hugging Face folder that it may have been made from: names of its class, the
// order of elements that transformers expects, blocks decoded to f32, and what GGUF keeps in f32
// only because llama.cpp wants it so in the type of the other weights, where that loses nothing.
// `side` gets config.json and the tokenizer. Reads norms and biases to see what they fit. Throws
// Unsupported for architectures without a way back, and with every tensor that does not map.
ModelView hf_view(std::shared_ptr<const Model> gguf, std::vector<SideFile>& side);

}  // namespace wtool
