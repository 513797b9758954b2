#pragma once
// Floats of 8 or 4 bits times a scale for each block of them: what compressed-tensors, DeepSeek's
// fp8, gpt-oss and ModelOpt have in common. For the schemes' readers only.
#include "formats/schemes/decoded.h"

namespace wtool {

struct ScaledFloats {
  std::string where;  // file and tensor, for what is thrown while reading
  Shape shape;        // of the values
  TensorPtr codes;    // f8_e4m3 or f8_e5m2 of that shape; or u8, two e2m1 to a byte, low one first
  TensorPtr scales;   // of each block; floats of any kind, e8m0 included
  std::uint64_t block_rows = 1, block_cols = 1;
  TensorPtr global = nullptr;  // one f32 for all scales
  bool divide = false;         // scales are divided by it, not multiplied
};
// (element × scale) in f32, where the scale is first taken times or over the global one.
TensorPtr scaled_floats(ScaledFloats parts);

// A part whose bytes are powers of two: u8 becomes f8_e8m0.
TensorPtr stored_scale(const Catalog& catalog, const TensorEntry& entry);

// Sides of a block that a hint can hold: powers of two up to 128.
bool is_block(std::uint64_t rows, std::uint64_t cols);
std::uint8_t block_hint(std::uint64_t rows, std::uint64_t cols);
std::uint64_t hinted_rows(std::uint8_t hint);
std::uint64_t hinted_cols(std::uint8_t hint);

}  // namespace wtool
