#pragma once
#include "lib/model/model.h"

namespace wtool {

// What gpt-oss's experts need to become ggml's. Its 4-bit blocks are MXFP4 as ggml has it but for
// where bytes and halves of bytes lie, so they are moved and never decoded.
TensorPtr mxfp4_blocks(const Model& model, const LogicalTensor& t);
bool is_mxfp4(const LogicalTensor& t);

// [experts, in, out] → [experts, out, in]
TensorPtr experts_transposed(const TensorPtr& of);
// Of [experts, 2·m, k] every second row, of [experts, 2·m] every second element.
TensorPtr every_second(const TensorPtr& of, bool odd);

}  // namespace wtool
