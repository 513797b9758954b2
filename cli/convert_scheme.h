#pragma once
#include "cli/rewrite.h"

namespace wtool {

// convert --scheme: the integers of quantised tensors in another scheme's packing, everything else
// as it is, and the quantization_config that says so. Returns that as JSON text. Throws Usage with
// every tensor that cannot be stored so.
std::string add_repacked(Job& job, const Scheme& to);

// What the quantised tensors of a model are when they are decoded and no type is asked for: the
// type that config.json names, or bf16.
DType plain_dtype(const Model& model);

// Leaves files out of the output that describe how the input was quantised (quantize_config.json of
// older tools), and says so.
void drop_stale_configs(Job& job);

}  // namespace wtool
