#pragma once
#include <cstddef>

#include "lib/base/dtype.h"

namespace wtool {

// The cells (cells.h) of whole blocks, and by how much a value may miss its cell. Any bytes will
// do.
struct CellsOut {
  float *low, *high, *slack;
};
using BlockCells = void (*)(const std::byte* in, const CellsOut& out, std::size_t n);
// Null: there are none for the type.
BlockCells ggml_cells(DType type) noexcept;

}  // namespace wtool
