#pragma once
#include <span>

#include "lib/base/dtype.h"
#include "lib/numeric/kernels/ggml.h"

namespace wtool {

// How values become a ggml block type. The bytes are those of ggml_quantize_chunk.
struct Quantizer {
  DType dtype;
  QuantizeRows plain;
  QuantizeRows weighted = nullptr;  // with importance; null: it would change nothing
  QuantizeRows best = nullptr;  // searches further, with importance if it is given; null: `plain`
                                // is the best there is
};
std::span<const Quantizer> all_quantizers() noexcept;
const Quantizer* find_quantizer(DType type) noexcept;  // null: not a block type we write

}  // namespace wtool
